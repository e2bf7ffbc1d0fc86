"""What there is to look at: the runs of a params file that have tables."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from selftrain.errors import UserError
from selftrain.training.config import RUN_SECTIONS


@dataclass(frozen=True)
class Shown:
    """The tables of one run."""

    name: str
    predictions: Path
    """Of the unlabeled split; those of the others are beside it."""
    teacher: str | None
    selection: Path | None
    """What the run was trained on; None for supervised runs."""


def shown_runs(params: dict[str, Any], predictions: Path, selections: Path) -> list[Shown]:
    """The params file's runs that have predictions, in its order. Raises UserError if none has."""
    runs = []
    for section in RUN_SECTIONS:
        for name, entry in (params.get(section) or {}).items():
            table = predictions / name / "unlabeled"
            if table.is_dir():
                selection = selections / name
                teacher = (entry or {}).get("teacher")
                runs.append(Shown(name, table, teacher, selection if selection.is_dir() else None))
    if not runs:
        raise UserError(f"{predictions}: no run of this params file has predictions yet; run `dvc repro`")
    return runs


def history(row: dict[str, Any], runs: list[Shown], classes: list[str]) -> str:
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
