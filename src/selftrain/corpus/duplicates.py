"""Unlabeled images that must not be trained on: leaks of the held-out splits, and duplicates.

A leak shows the same picture as a validation or test image, pixel for pixel or altered (``near.py``): a student that
trains on it is measured on what it has seen. A duplicate has the same pixels as a labeled image or as an earlier
unlabeled one, or shows the same picture as a better unlabeled one (``pool_copies.py``).
"""

from pathlib import Path

from selftrain.corpus.near import near_copies
from selftrain.corpus.pool_copies import pool_copies
from selftrain.plumbing.engine import Engine
from selftrain.plumbing.spill import querying, spill_folder
from selftrain.tables.keys import SPLITS
from selftrain.tables.manifest import manifest_parts
from selftrain.tables.parquet import write_frame

# One list of pictures: held-out images first, then labeled, then unlabeled in key order. Whatever is
# not the first of its picture repeats the first.
REPEATS = """
WITH pictures AS (
    SELECT key, pixels, 0 AS rank FROM read_parquet($held_out)
    UNION ALL SELECT key, pixels, 1 AS rank FROM read_parquet($labeled)
    UNION ALL SELECT key, pixels, 2 AS rank FROM read_parquet($unlabeled)
), repeats AS (
    SELECT key, rank,
        first_value(key) OVER first AS of_key,
        first_value(rank) OVER first AS of_rank
    FROM pictures WINDOW first AS (PARTITION BY pixels ORDER BY rank, key)
)
SELECT key, CASE WHEN rank = 1 THEN 'held out too' WHEN of_rank = 0 THEN 'leak' ELSE 'duplicate' END AS kind, of_key
FROM repeats WHERE key != of_key AND (rank = 2 OR (rank = 1 AND of_rank = 0)) ORDER BY key
"""


TWO_CLASSES = """
SELECT list(source ORDER BY key) FROM read_parquet($labeled) GROUP BY pixels HAVING count(DISTINCT label) > 1
ORDER BY min(key)
"""


def in_two_classes(corpus: Path) -> list[list[str]]:
    """Labeled pictures that have two labels, pixel for pixel: the sources of each."""
    import duckdb

    parts = [str(part) for part in manifest_parts(corpus / "labeled")]
    with spill_folder() as spill, querying(spill), duckdb.connect(config={"temp_directory": spill}) as connection:
        return [sources for (sources,) in connection.sql(TWO_CLASSES, params={"labeled": parts}).fetchall()]


def write_duplicates(corpus: Path, out: Path, near: bool, engine: Engine) -> dict[str, int]:
    """Write ``key, kind, of_key, match, correlation`` for every leak and duplicate; return how many of each kind.

    ``match`` is ``exact`` or, if ``near`` asks for them, ``near``. ``held out too`` counts labeled images that are also
    validation or test images; they are not written.
    """
    import duckdb
    import polars as pl

    parts = {split: [str(part) for part in manifest_parts(corpus / split)] for split in SPLITS}
    with (
        spill_folder() as spill,
        querying(spill),
        duckdb.connect(config={"temp_directory": spill}) as connection,
    ):
        parameters = {
            "held_out": parts["validation"] + parts["test"],
            "labeled": parts["labeled"],
            "unlabeled": parts["unlabeled"],
        }
        repeats = pl.DataFrame(connection.sql(REPEATS, params=parameters).to_arrow_table())
    held_out_too = repeats.filter(pl.col("kind") == "held out too")
    exact = repeats.filter(pl.col("kind") != "held out too").with_columns(
        match=pl.lit("exact"), correlation=pl.lit(1.0, pl.Float32)
    )
    found = near_copies(corpus, engine) if near else []
    schema = {"key": pl.Int64, "of_key": pl.Int64, "correlation": pl.Float32}
    copies = pl.DataFrame(found, schema=schema, orient="row").with_columns(kind=pl.lit("leak"), match=pl.lit("near"))
    leaks = exact.filter(pl.col("kind") == "leak")
    copies = copies.select(exact.columns).join(leaks, on="key", how="anti")
    # What is an altered copy of a held-out image is a leak, whatever else it repeats.
    known = pl.concat([exact.join(copies, on="key", how="anti"), copies])
    in_pool = pool_copies(corpus, set(known["key"]), engine) if near else []
    repeated = pl.DataFrame(in_pool, schema=schema, orient="row").with_columns(
        kind=pl.lit("duplicate"), match=pl.lit("near")
    )
    table = pl.concat([known, repeated.select(exact.columns)]).sort("key")
    write_frame(table, out)
    return {
        "leak": len(leaks),
        "near leak": len(copies),
        "duplicate": len(known) - len(leaks) - len(copies),
        "near duplicate": len(repeated),
        "held out too": len(held_out_too),
    }
