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
    """Of the unlabeled split."""
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
