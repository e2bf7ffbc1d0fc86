"""A pipeline's evaluated runs, teachers before their students."""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from selftrain.params.runs import chain_of
from selftrain.plumbing.errors import UserError
from selftrain.plumbing.files import sha256_of
from selftrain.tables.records import EvaluatedRecord, Metrics


@dataclass(frozen=True)
class EvaluatedRun:
    """One run's evaluation folder, read."""

    folder: Path
    metrics: Metrics
    record: EvaluatedRecord
    """``run.json`` of its model, with ``classes`` and ``per_class_accuracy``."""

    @property
    def name(self) -> str:
        """The run's name."""
        return self.record.run

    @property
    def teacher(self) -> str | None:
        """Its teacher's name; None for supervised runs."""
        return self.record.teacher

    def saw(self, split: str) -> bool:
        """Whether it, or what it was adopted from, was trained on a cut that holds images of a held-out split."""
        return split in self.record.splits_seen

    @property
    def is_round(self) -> bool:
        """Whether it was trained on pseudo-labels."""
        return "coverage" in self.metrics

    @property
    def labels_itself(self) -> bool:
        """Whether its labels are made while it is trained, and the table only chose the images."""
        return self.is_round and not self.record.learns_from_table


def load_runs(evaluation: Path, names: Collection[str] | None = None) -> list[EvaluatedRun]:
    """The evaluated runs under a folder, of those named. Raises UserError if there is none.

    DVC leaves the outputs of a run that was taken out of params.yaml where they are: hence the names.
    """
    folders = sorted(path.parent for path in evaluation.glob("*/metrics.json"))
    folders = [folder for folder in folders if names is None or folder.name in names]
    if not folders:
        raise UserError(f"{evaluation}: nothing evaluated there yet; run `dvc repro`")
    runs = {}
    for folder in folders:
        record = EvaluatedRecord.read(folder / "details" / "run.json")
        runs[record.run] = EvaluatedRun(folder, Metrics.read(folder / "metrics.json"), record)
    # A teacher that was taken out of params.yaml is none of them.
    teachers = {run.name: run.teacher if run.teacher in runs else None for run in runs.values()}

    def place(run: EvaluatedRun) -> tuple[int, bool, str]:
        return len(chain_of(run.name, teachers)), run.name not in teachers.values(), run.name

    return sorted(runs.values(), key=place)


def chain_saw(run: EvaluatedRun, split: str, runs: list[EvaluatedRun]) -> bool:
    """Whether a run or any of its teachers was trained on images of a held-out split."""
    by_name = {other.name: other for other in runs}
    chain = chain_of(run.name, {other.name: other.teacher for other in runs})
    return any(by_name[name].saw(split) for name in chain if name in by_name)


def evaluated_model(models: Path, run: EvaluatedRun) -> Path:
    """A run's model folder. Raises UserError if the model there is not the one that was evaluated."""
    folder = models / run.name
    weights = folder / "model.safetensors"
    if not weights.is_file() or sha256_of(weights) != run.record["weights"]:
        raise UserError(f"{folder}: not the model that {run.folder} evaluated; run `dvc repro`")
    return folder
