"""What there is to browse: the runs of a pipeline that have tables."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from selftrain.plumbing.errors import UserError
from selftrain.project import Project


@dataclass(frozen=True)
class BrowsedRun:
    """The tables of one run."""

    name: str
    predictions: Path
    """Of the unlabeled split; those of the others are beside it."""
    teacher: str | None
    selection: Path | None
    """What the run was trained on; None for supervised runs."""


def browsed_runs(project: Project) -> list[BrowsedRun]:
    """The pipeline's runs that have predictions, in the params file's order. Raises UserError if none has."""
    runs = []
    for run in project.runs.values():
        table, selection = run.predictions / "unlabeled", project.selections / run.name
        if not table.is_dir():
            continue
        is_round = selection.is_dir()
        if is_round and not (project.run(str(run.teacher)).predictions / "unlabeled").is_dir():
            print(f"{run.name}: its teacher {run.teacher} has no predictions, so its round is not shown; `dvc repro`")
            is_round = False
        runs.append(BrowsedRun(run.name, table, run.teacher, selection if is_round else None))
    if not runs:
        raise UserError(f"{project.predictions}: no run of this pipeline has predictions yet; run `dvc repro`")
    return runs


def history(row: dict[str, Any], runs: list[BrowsedRun], classes: list[str]) -> str:
    """One image's way through the chain, on a line: each run's label, then what each round made of it.

    ``row`` is of ``tables.iter_pool``.
    """
    steps = []
    for run in runs:
        label, confidence = row[f"{run.name}_label"], row[f"{run.name}_confidence"]
        decided = ""
        if run.selection is not None:
            copies = f" ×{row[f'{run.name}_copies']}" if row[f"{run.name}_copies"] else ""
            decided = f" ({row[f'{run.name}_decision'].replace('_', ' ')}{copies})"
        elif run.name not in {other.teacher for other in runs}:
            continue
        steps.append(f"{run.name}{decided}: {classes[label]} {confidence:.2f}")
    return " → ".join(steps)
