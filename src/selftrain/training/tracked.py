"""A training's curves in MLflow: continued where there is a checkpoint, ended as what became of it."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from selftrain.plumbing.git import git_commit
from selftrain.plumbing.tracker import RUN, Tracker, read_run
from selftrain.plumbing.tracking import is_installed
from selftrain.tables.keys import SPLITS
from selftrain.training.loop import Curves
from selftrain.training.run import Training


class TrackedCurves(Curves, Protocol):
    """Curves of a run that MLflow knows by an id."""

    def wait_for_run(self) -> str:
        """The MLflow run's id."""


class NoCurves:
    """The curves of every process but the first, and of trainings that are not tracked."""

    def log(self, step: int, metrics: dict[str, float]) -> None:
        """Nothing."""

    def flush(self) -> None:
        """Nothing."""

    def wait_for_run(self) -> str:
        """No id."""
        return ""


class PhaseCurves:
    """One phase's part of a run's curves: they go on where the phase before ended.

    A later phase's values are logged under its name too (``resolution_fix/loss``), which MLflow shows as a section.
    """

    def __init__(self, curves: Curves, phase: str, first_step: int) -> None:
        self.curves, self.phase, self.first_step = curves, phase, first_step

    def log(self, step: int, metrics: dict[str, float]) -> None:
        """Take the values of a step of the phase."""
        of_phase = {f"{self.phase}/{name}": value for name, value in metrics.items()} if self.phase else {}
        self.curves.log(self.first_step + step, metrics | of_phase)

    def flush(self) -> None:
        """Store what was taken."""
        self.curves.flush()


@contextmanager
def tracked(training: Training, data: dict[str, str], checkpoints: Path, rank: int) -> Iterator[TrackedCurves]:
    """Yield where the loop reports its curves; ``data`` are the run's digests.

    The MLflow run's id is kept beside the checkpoints. FAILED is an error, KILLED is SIGTERM or Ctrl-C.
    """
    if rank == 0 and training.track and not is_installed():
        print("MLflow is not installed, so this training is not tracked; `pip install 'selftrain[track]'`")
    if rank != 0 or not training.track or not is_installed():
        yield NoCurves()
        return
    tracker = Tracker(checkpoints, training.name, _tags(training), _params(training), _datasets(training, data))
    for other in checkpoints.parent.glob(f"*/{RUN}"):
        run = read_run(other.parent)
        if other.parent != checkpoints and run is not None and run.id and not run.status:
            tracker.end_abandoned(run.id)
    try:
        yield tracker
    except BaseException as error:
        tracker.finish("FAILED" if isinstance(error, Exception) else "KILLED")
        raise
    tracker.finish("FINISHED")


def _tags(training: Training) -> dict[str, str]:
    teacher = training.teacher_run()
    return {
        "pipeline": training.pipeline,
        "round": training.name,
        "algorithm": training.config.algorithm.name,
        "teacher": teacher.run if teacher else "",
        "teacher_run_id": teacher.mlflow_run_id if teacher else "",
        "mlflow.source.git.commit": git_commit(),
    }


def _params(training: Training) -> dict[str, str]:
    return _flat(training.config.model_dump(mode="json")) | {"seed": str(training.seed)}


def _datasets(training: Training, data: dict[str, str]) -> dict[str, tuple[str, str]]:
    contexts = {split: split for split in SPLITS}
    contexts |= {"labeled": "training", "selection": "pseudo-labels", "unlabeled": "pool"}
    return {
        context: (str(training.selection if name == "selection" else training.corpus / name), data[name])
        for name, context in contexts.items()
        if name in data
    }


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested parameters as ``a.b`` → text, as MLflow's comparison page wants them."""
    flat: dict[str, str] = {}
    for key, value in values.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": str(value)}
    return flat
