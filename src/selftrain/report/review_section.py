"""What to look at first, in the report: the most doubtful labels and the suspected strangers, with pictures."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from selftrain.evaluation.review import FIRST
from selftrain.plumbing.files import read_json
from selftrain.report.pictures import Grid, Picture, data_urls
from selftrain.tables.parquet import read_frame

SHARES = [f"first_{share:.0%}" for share in FIRST]


@dataclass(frozen=True)
class ReviewSection:
    """The lists of a pipeline, ready for the template."""

    rounds: dict[str, dict[str, Any]]
    """``summary.json``, by round."""
    out_of_domain: dict[str, Any]
    grids: list[Grid]

    @property
    def measured(self) -> list[tuple[str, str, dict[str, Any]]]:
        """(round, share of the list, what it holds), where truth is known."""
        return [
            (name, share.removeprefix("first_"), figures[share])
            for name, figures in self.rounds.items()
            for share in SHARES
            if share in figures
        ]


def review_section(review: Path, rounds: list[str], unlabeled: Path, classes: list[str], count: int) -> ReviewSection:
    """Read the lists of a pipeline, with pictures of the last round's first and of the suspected strangers."""
    summary = read_json(review / "summary.json", "dvc repro review")
    lists = [
        (name, f"most doubtful labels of {name}", "its label, and what else it is likeliest to be")
        for name in rounds[-1:]
    ]
    grids = []
    for name, title, caption in (
        *lists,
        ("out_of_domain", "suspected out of domain", "strangest to the first teacher"),
    ):
        rows = read_frame(review / f"{name}.parquet").head(count)
        images = data_urls(unlabeled, rows["key"])
        pictures = [
            _picture(row, images[row["key"]], classes) for row in rows.iter_rows(named=True) if row["key"] in images
        ]
        if pictures:
            grids.append(Grid(title, caption, pictures))
    return ReviewSection({name: summary[name] for name in rounds}, summary["out_of_domain"], grids)


def _picture(row: dict[str, Any], image: str, classes: list[str]) -> Picture:
    label = classes[row["label"]]
    if "suggested" not in row:
        return Picture(image, f"{row['key']}: {label}, strangeness {row['strangeness']:.2f}", label, wrong=False)
    caption = f"{label}, or {classes[row['suggested']]}?"
    agreeing = f"{row['agreeing']} of {row['runs']} runs agree"
    return Picture(image, f"{row['key']}: {caption} quality {row['quality']:.2f}, {agreeing}", caption, wrong=False)
