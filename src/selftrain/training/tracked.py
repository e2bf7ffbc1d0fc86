"""A training's curves in MLflow: continued where there is a checkpoint, ended as what became of it."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from selftrain.tracking import Tracker
from selftrain.training.loop import Curves
from selftrain.training.provenance import git_commit
from selftrain.training.run import Run


class TrackedCurves(Curves, Protocol):
    """Curves of a run that MLflow knows by an id."""

    def wait_for_run(self) -> str:
        """The MLflow run's id."""


class NoCurves:
    """The curves of every process but the first."""

    def log(self, step: int, metrics: dict[str, float]) -> None:
        """Nothing."""

    def flush(self) -> None:
        """Nothing."""

    def wait_for_run(self) -> str:
        """No id."""
        return ""


@contextmanager
def tracked(run: Run, data: dict[str, str], checkpoints: Path, rank: int) -> Iterator[TrackedCurves]:
    """Yield where the loop reports its curves; ``data`` are the run's digests.

    The MLflow run's id is kept beside the checkpoints. FAILED is an error, KILLED is SIGTERM or Ctrl-C.
    """
    if rank != 0:
        yield NoCurves()
        return
    checkpoints.mkdir(parents=True, exist_ok=True)
    remembered = checkpoints / "mlflow_run_id"
    run_id = remembered.read_text().strip() if remembered.exists() else None
    tracker = Tracker(run.name, run_id, _tags(run), _params(run), _datasets(run, data), on_run=remembered.write_text)
    for other in checkpoints.parent.glob("*/mlflow_run_id"):
        if other != remembered:
            tracker.end_abandoned(other.read_text().strip())
    try:
        yield tracker
    except BaseException as error:
        tracker.finish("FAILED" if isinstance(error, Exception) else "KILLED")
        raise
    tracker.finish("FINISHED")


def _tags(run: Run) -> dict[str, str]:
    teacher = run.teacher_run()
    return {
        "pipeline": run.pipeline,
        "round": run.name,
        "algorithm": run.config.algorithm.name,
        "teacher": teacher.get("run", ""),
        "teacher_run_id": teacher.get("mlflow_run_id", ""),
        "mlflow.source.git.commit": git_commit(),
    }


def _params(run: Run) -> dict[str, str]:
    return _flat(run.config.model_dump(mode="json")) | {"seed": str(run.seed)}


def _datasets(run: Run, data: dict[str, str]) -> dict[str, tuple[str, str]]:
    datasets = {
        "training": (str(run.corpus / "labeled"), data["labeled"]),
        "validation": (str(run.corpus / "validation"), data["validation"]),
    }
    if run.selection is not None:
        datasets["pseudo-labels"] = (str(run.selection), data["selection"])
    return datasets


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested parameters as ``a.b`` → text, as MLflow's comparison page wants them."""
    flat: dict[str, str] = {}
    for key, value in values.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": str(value)}
    return flat
