"""The command ``diff``: two rounds, or a round at two revisions, compared."""

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from selftrain.history.diff import SHOWN, SelectionDiff, diff_selections
from selftrain.history.revisions import at_revision
from selftrain.plumbing.errors import UserError
from selftrain.plumbing.files import read_json, write_json

if TYPE_CHECKING:
    import polars as pl

CHANGE_WORDS = {
    "entered": "trained on now and not before",
    "left": "trained on before and not now",
    "flipped": "trained on in both, under another label",
    "copies": "trained on in both, more or less often",
}


@dataclass(frozen=True)
class Compared:
    """A comparison with the names that it goes by."""

    name_a: str
    name_b: str
    classes: list[str]
    diff: SelectionDiff


def compare(selections: Path, run_a: str, run_b: str, rev: str | None, examples: int) -> Compared:
    """Compare two rounds' selections; with ``rev``, ``run_a``'s is the one of that git revision.

    Raises UserError for runs without a selection, revisions that cannot be had, and selections of other classes.
    """
    with tempfile.TemporaryDirectory() as scratch:
        b = _selection(selections, run_b)
        a = _selection(selections, run_a) if rev is None else at_revision(selections / run_a, rev, Path(scratch))
        classes, other = (list(read_json(folder / "summary.json", "dvc repro")["per_class"]) for folder in (b, a))
        if classes != other:
            raise UserError(f"{run_a} and {run_b} have other classes: {', '.join(other)} and {', '.join(classes)}")
        diff = diff_selections(a, b, classes, examples)
    return Compared(f"{run_a} at {rev}" if rev else run_a, run_b, classes, diff)


def write_diff_json(compared: Compared, path: Path) -> None:
    """Write the whole comparison."""
    write_json(path, {"a": compared.name_a, "b": compared.name_b, **compared.diff.as_dict()})


def print_diff(compared: Compared) -> None:
    """Print what changed: in all, by class, by decision, and some examples."""
    from rich.console import Console
    from rich.table import Table

    diff = compared.diff
    console = Console(width=120 if not Console().is_terminal else None, force_jupyter=False, markup=False)
    console.print(f"{compared.name_a} → {compared.name_b}", style="bold")
    for change in SHOWN:
        console.print(f"  {diff.counts[change]:>9,} {change:8} {CHANGE_WORDS[change]}", highlight=False)
    console.print(f"  {diff.counts['same']:>9,} {'same':8} trained on in both, alike", highlight=False)
    console.print(f"  {diff.counts['out']:>9,} {'out':8} in neither", highlight=False)
    for title, frame in (
        ("by class", _without_zeros(diff.by_class)),
        ("decisions", diff.decisions),
        ("examples, those whose confidence moved most", _told_examples(compared)),
    ):
        if not len(frame):
            continue
        table = Table(title=title, title_justify="left")
        for name, kind in frame.schema.items():
            table.add_column(name.replace("_", " "), justify="right" if kind.is_numeric() else "left", no_wrap=True)
        for row in frame.iter_rows():
            table.add_row(*(f"{value:,}" if isinstance(value, int) else str(value) for value in row))
        console.print(table)


def _without_zeros(table: "pl.DataFrame") -> "pl.DataFrame":
    """The columns in which anything happened, under short names."""
    short = {"images_a": "before", "images_b": "after", "balanced_a": "epoch before", "balanced_b": "epoch after"}
    shown = [name for name in table.columns if name == "class" or name in short or table[name].sum()]
    return table.select(shown).rename({name: short[name] for name in shown if name in short})


PRINTED = 5
"""Examples of each change in the terminal."""


def describe(row: dict[str, Any], end: str, classes: list[str]) -> str:
    """One side of an example in words; ``end`` is ``a`` or ``b``."""
    if row[f"label_{end}"] is None:
        return "absent"
    copies = f" ×{row[f'copies_{end}']}" if row[f"copies_{end}"] else ""
    return f"{classes[row[f'label_{end}']]} {row[f'confidence_{end}']:.2f} {row[f'decision_{end}']}{copies}"


def _told_examples(compared: Compared) -> "pl.DataFrame":
    import polars as pl

    few = compared.diff.examples.group_by("change", maintain_order=True).head(PRINTED)
    rows = [
        (row["change"], str(row["key"]), describe(row, "a", compared.classes), describe(row, "b", compared.classes))
        for row in few.iter_rows(named=True)
    ]
    return pl.DataFrame(rows, schema=dict.fromkeys(("change", "key", "before", "after"), pl.String), orient="row")


def _selection(selections: Path, run: str) -> Path:
    folder = selections / run
    if not (folder / "summary.json").is_file():
        there = sorted(path.parent.name for path in selections.glob("*/summary.json"))
        others = f"there are: {', '.join(there)}" if there else "`dvc repro` makes them"
        raise UserError(f"{folder}: no selection there; {others}")
    return folder
