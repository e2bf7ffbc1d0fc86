"""Images worth showing of a round: the surest, the least sure kept, the rejected, the flipped, the wrong."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from selftrain.counters import Stream, mix
from selftrain.tables.parquet import reading, scan
from selftrain.tables.selection import CORRECTED, KEPT, LOW_CONFIDENCE, selection_parts
from selftrain.tables.truth import NO_CLASS

if TYPE_CHECKING:
    import polars as pl

PARTS_AT_ONCE = 32
COLUMNS = ("group", "key", "label", "confidence", "decision", "copies", "truth", "teacher_label")


def select_examples(selection: Path | None, flipped: "pl.DataFrame | None", truth: Path, count: int) -> "pl.DataFrame":
    """At most ``count`` images a group, best examples first; the columns are ``COLUMNS``."""
    with reading(selection or truth):
        return _select_examples(selection, flipped, truth, count)


def _select_examples(selection: Path | None, flipped: "pl.DataFrame | None", truth: Path, count: int) -> "pl.DataFrame":
    import polars as pl

    known = scan([truth]).rename({"label": "truth"})
    groups = []
    parts = [] if selection is None else selection_parts(selection)
    if parts:
        picks = _picks(count)
        found: dict[str, list[pl.DataFrame]] = {name: [] for name in picks}
        # The first of the first are the first of all, so that memory holds some parts at a time.
        for start in range(0, len(parts), PARTS_AT_ONCE):
            rows = scan(parts[start : start + PARTS_AT_ONCE]).join(known, on="key", how="left")
            for name, pick in picks.items():
                found[name].append(pick(rows))
        groups += [_named(name, pick(pl.concat(found[name]).lazy())) for name, pick in picks.items()]
    if flipped is not None:
        rows = flipped.lazy().join(known, on="key", how="left")
        groups.append(_named("flipped", _first(rows, count, "confidence", descending=True)))
    empty = pl.DataFrame(
        schema={
            "group": pl.String,
            "key": pl.Int64,
            "label": pl.Int32,
            "confidence": pl.Float32,
            "decision": pl.String,
            "copies": pl.Int32,
            "truth": pl.Int32,
            "teacher_label": pl.Int32,
        }
    )
    return pl.concat([empty, *groups], how="diagonal").select(COLUMNS)


def _picks(count: int) -> "dict[str, Callable[[pl.LazyFrame], pl.DataFrame]]":
    """By group, how to take its images from some rows of a selection; taken from what was taken, they are the same."""
    import polars as pl

    kept, unsure = pl.col("decision") == KEPT, pl.col("decision") == LOW_CONFIDENCE
    out_of_domain = pl.col("truth") == NO_CLASS
    return {
        "surest": lambda rows: _first(rows.filter(kept), count, "confidence", descending=True),
        "least sure kept": lambda rows: _first(rows.filter(kept), count, "confidence"),
        "corrected": lambda rows: _sample(rows.filter(pl.col("decision") == CORRECTED), count),
        "below the threshold": lambda rows: _sample(rows.filter(unsure), count),
        "wrong and kept": lambda rows: _first(rows.filter(kept & _wrong()), count, "confidence", descending=True),
        "out of domain and kept": lambda rows: _first(
            rows.filter(kept & out_of_domain), count, "confidence", descending=True
        ),
    }


def _wrong() -> "pl.Expr":
    import polars as pl

    return (pl.col("truth") != pl.col("label")) & (pl.col("truth") != NO_CLASS)


def _first(rows: "pl.LazyFrame", count: int, by: str, descending: bool = False) -> "pl.DataFrame":
    """The first rows by a column, ties by key; never sorts the whole table."""
    best = rows.bottom_k(count, by=[by, "key"], reverse=[descending, False])
    return best.collect(engine="streaming").sort(by, "key", descending=[descending, False])


def _sample(rows: "pl.LazyFrame", count: int) -> "pl.DataFrame":
    """The same random rows every time."""
    import polars as pl

    uniforms = pl.col("key").map_batches(
        lambda keys: pl.Series(mix(0, Stream.EXAMPLES, keys.to_numpy())), return_dtype=pl.UInt64
    )
    return _first(rows.with_columns(uniform=uniforms), count, "uniform").drop("uniform")


def _named(group: str, rows: "pl.DataFrame") -> "pl.DataFrame":
    import polars as pl

    return rows.with_columns(group=pl.lit(group))
