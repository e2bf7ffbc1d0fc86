"""What became of the images between two selections: which entered, left, flipped, or changed their copies."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from selftrain.plumbing.errors import UserError
from selftrain.tables.parquet import read_frame
from selftrain.tables.selection import TRAINED_ON, selection_parts

if TYPE_CHECKING:
    import polars as pl

CHANGES = ("entered", "left", "flipped", "copies", "same", "out")
"""``entered``: trained on in B and not in A; ``left``: the other way round; ``flipped``: in both, under another label;
``copies``: in both, under the same label, more or less often; ``same``: in both, alike; ``out``: in neither."""
SHOWN = ("entered", "left", "flipped", "copies")


@dataclass(frozen=True)
class SelectionDiff:
    """Two selections of one pool, compared."""

    counts: dict[str, int]
    """Images by change, every one of ``CHANGES``."""
    by_class: "pl.DataFrame"
    """``class, entered, left, flipped_in, flipped_out, copies, images_a, images_b, balanced_a, balanced_b``."""
    decisions: "pl.DataFrame"
    """``from, to, images``: how decisions changed; images that only one of them has are from or to ``absent``."""
    examples: "pl.DataFrame"
    """``change, key, label_a, label_b, confidence_a, confidence_b, decision_a, decision_b, copies_a, copies_b``."""

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "counts": self.counts,
            "by_class": self.by_class.to_dicts(),
            "decisions": self.decisions.to_dicts(),
            "examples": self.examples.to_dicts(),
        }


def diff_selections(a: Path, b: Path, classes: list[str], examples: int) -> SelectionDiff:
    """Compare two selections part by part; ``examples`` is the most images that are named for each change.

    Examples are those that changed most in confidence. Raises UserError if a folder holds no selection, or if the two
    have no image in common.
    """
    import polars as pl

    in_a, in_b = ({path.name: path for path in selection_parts(folder)} for folder in (a, b))
    tallies: list[pl.DataFrame] = []
    changed: list[pl.DataFrame] = []
    common = 0
    for name in sorted(in_a.keys() | in_b.keys()):
        rows = _joined(in_a.get(name), in_b.get(name))
        common += len(rows.filter(pl.col("decision_a").is_not_null() & pl.col("decision_b").is_not_null()))
        tallies.append(_tally(rows))
        shift = (pl.col("confidence_b").fill_null(0) - pl.col("confidence_a").fill_null(0)).abs().fill_nan(0)
        most = rows.filter(pl.col("change").is_in(SHOWN)).with_columns(shift=shift)
        changed = [_first(pl.concat([*changed, most]), examples)]
    if not common:
        raise UserError(f"{a} and {b} have no image in common; they are of different corpora")
    tally = pl.concat(tallies)
    return SelectionDiff(
        counts={change: int(tally.filter(pl.col("change") == change)["images"].sum()) for change in CHANGES},
        by_class=_by_class(tally, classes),
        decisions=_decisions(tally),
        examples=_first(pl.concat(changed), examples).drop("shift"),
    )


def _joined(a: Path | None, b: Path | None) -> "pl.DataFrame":
    """One part of both, a row an image that either has, with its ``change``."""
    import polars as pl

    schema = {
        "key": pl.Int64,
        "label": pl.Int32,
        "confidence": pl.Float32,
        "decision": pl.String,
        "copies": pl.Int32,
    }
    frames = []
    for path, end in ((a, "_a"), (b, "_b")):
        rows = read_frame(path) if path is not None else pl.DataFrame(schema=schema)
        frames.append(rows.select(list(schema)).rename({name: name + end for name in schema if name != "key"}))
    before, after = (pl.col(f"decision_{end}").is_in(TRAINED_ON).fill_null(False) for end in "ab")
    change = (
        pl.when(before & after & (pl.col("label_a") != pl.col("label_b")))
        .then(pl.lit("flipped"))
        .when(before & after & (pl.col("copies_a") != pl.col("copies_b")))
        .then(pl.lit("copies"))
        .when(before & after)
        .then(pl.lit("same"))
        .when(after)
        .then(pl.lit("entered"))
        .when(before)
        .then(pl.lit("left"))
        .otherwise(pl.lit("out"))
    )
    return frames[0].join(frames[1], on="key", how="full", coalesce=True).with_columns(change=change)


def _first(rows: "pl.DataFrame", count: int) -> "pl.DataFrame":
    """The first rows of each change: those whose confidence moved most, ties by key."""
    import polars as pl

    places = {name: place for place, name in enumerate(CHANGES)}
    first = rows.sort("shift", "key", descending=[True, False]).group_by("change", maintain_order=True).head(count)
    return first.select(rows.columns).sort(pl.col("change").replace_strict(places), maintain_order=True)


def _tally(rows: "pl.DataFrame") -> "pl.DataFrame":
    import polars as pl

    return rows.group_by("change", "label_a", "label_b", "decision_a", "decision_b").agg(
        pl.len().alias("images"), pl.col("copies_a").sum(), pl.col("copies_b").sum()
    )


def _by_class(tally: "pl.DataFrame", classes: list[str]) -> "pl.DataFrame":
    import polars as pl

    def of(label: int, column: str, *changes: str) -> "pl.DataFrame":
        return tally.filter((pl.col(column) == label) & pl.col("change").is_in(changes))

    rows = []
    for label, name in enumerate(classes):
        before = of(label, "label_a", "left", "flipped", "copies", "same")
        after = of(label, "label_b", "entered", "flipped", "copies", "same")
        rows.append(
            {
                "class": name,
                "entered": of(label, "label_b", "entered")["images"].sum(),
                "left": of(label, "label_a", "left")["images"].sum(),
                "flipped_in": of(label, "label_b", "flipped")["images"].sum(),
                "flipped_out": of(label, "label_a", "flipped")["images"].sum(),
                "copies": of(label, "label_b", "copies")["images"].sum(),
                "images_a": before["images"].sum(),
                "images_b": after["images"].sum(),
                "balanced_a": before["copies_a"].sum(),
                "balanced_b": after["copies_b"].sum(),
            }
        )
    return pl.DataFrame(rows)


def _decisions(tally: "pl.DataFrame") -> "pl.DataFrame":
    import polars as pl

    ends = [
        pl.col("decision_a").fill_null("absent").alias("from"),
        pl.col("decision_b").fill_null("absent").alias("to"),
    ]
    return (
        tally.group_by(ends).agg(pl.col("images").sum()).sort("images", "from", "to", descending=[True, False, False])
    )
