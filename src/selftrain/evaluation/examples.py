"""Images worth showing of a round: the surest, the least sure kept, the rejected, the flipped, the wrong."""

from pathlib import Path
from typing import TYPE_CHECKING

from selftrain.counters import Stream, mix
from selftrain.tables.parquet import reading, scan
from selftrain.tables.selection import CORRECTED, KEPT, LOW_CONFIDENCE, scan_selection
from selftrain.tables.truth import NO_CLASS

if TYPE_CHECKING:
    import polars as pl

COLUMNS = ("group", "key", "label", "confidence", "decision", "copies", "truth", "teacher_label")


def select_examples(selection: Path | None, flipped: "pl.DataFrame | None", truth: Path, count: int) -> "pl.DataFrame":
    """At most ``count`` images a group, best examples first; the columns are ``COLUMNS``."""
    with reading(selection or truth):
        return _select_examples(selection, flipped, truth, count)


def _select_examples(selection: Path | None, flipped: "pl.DataFrame | None", truth: Path, count: int) -> "pl.DataFrame":
    import polars as pl

    known = scan([truth]).rename({"label": "truth"})
    groups = []
    if selection is not None:
        rows = scan_selection(selection).join(known, on="key", how="left")
        kept, unsure = pl.col("decision") == KEPT, pl.col("decision") == LOW_CONFIDENCE
        groups += [
            _named("surest", _first(rows.filter(kept), count, "confidence", descending=True)),
            _named("least sure kept", _first(rows.filter(kept), count, "confidence")),
            _named("corrected", _sample(rows.filter(pl.col("decision") == CORRECTED), count)),
            _named("below the threshold", _sample(rows.filter(unsure), count)),
            _named("wrong and kept", _first(rows.filter(kept & _wrong()), count, "confidence", descending=True)),
            _named(
                "out of domain and kept",
                _first(rows.filter(kept & (pl.col("truth") == NO_CLASS)), count, "confidence", descending=True),
            ),
        ]
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
