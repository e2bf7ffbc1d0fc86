"""What changed between two selections, as a page and as a section of the report."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from selftrain.history.compare import CHANGE_WORDS, Compared, describe
from selftrain.history.diff import SHOWN
from selftrain.report.page import render
from selftrain.report.pictures import Grid, Picture, data_urls


@dataclass(frozen=True)
class DiffSection:
    """A comparison, ready for the template ``diff_section.html``."""

    compared: Compared
    grids: list[Grid]

    @property
    def counts(self) -> list[tuple[str, int, str]]:
        """(change, images, what it means)."""
        return [(change, self.compared.diff.counts[change], CHANGE_WORDS[change]) for change in SHOWN]


def diff_section(compared: Compared, unlabeled: Path) -> DiffSection:
    """Bring the pictures of a comparison's examples."""
    examples = compared.diff.examples
    images = data_urls(unlabeled, examples["key"])
    grids = []
    for change in SHOWN:
        rows = [row for row in examples.iter_rows(named=True) if row["change"] == change and row["key"] in images]
        if rows:
            pictures = [_picture(row, images[row["key"]], compared.classes) for row in rows]
            grids.append(Grid(change, CHANGE_WORDS[change], pictures))
    return DiffSection(compared, grids)


def write_diff_page(compared: Compared, unlabeled: Path, path: Path) -> None:
    """Write a comparison as one self-contained page."""
    title = f"{compared.name_a} → {compared.name_b}"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(render("diff.html", title=title, section=diff_section(compared, unlabeled)), encoding="utf-8")


def _picture(row: dict[str, Any], image: str, classes: list[str]) -> Picture:
    names = ["–" if row[f"label_{end}"] is None else classes[row[f"label_{end}"]] for end in "ab"]
    caption = names[1] if names[0] == names[1] else f"{names[0]}→{names[1]}"
    return Picture(
        image, f"{row['key']}: {describe(row, 'a', classes)} → {describe(row, 'b', classes)}", caption, wrong=False
    )  # fmt: skip
