"""Unlabeled images that must not be trained on: leaks of the held-out splits, and duplicates.

A leak has the same pixels as a validation or test image: a student that trains on it is measured on
what it has seen. A duplicate has the same pixels as a labeled image or as an earlier unlabeled one.
"""

from pathlib import Path

from selftrain.corpus.manifest import manifest_parts
from selftrain.files import atomic_path

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


def write_duplicates(corpus: Path, out: Path) -> dict[str, int]:
    """Write ``key, kind, of_key`` for every leak and duplicate in the pool; return how many there are of each kind.

    ``held out too`` counts labeled images that are also validation or test images; they are not written.
    """
    import duckdb

    parts = {split: [str(part) for part in manifest_parts(corpus / split)] for split in _SPLITS}
    with duckdb.connect() as connection, atomic_path(out) as temporary:
        parameters = {
            "held_out": parts["validation"] + parts["test"],
            "labeled": parts["labeled"],
            "unlabeled": parts["unlabeled"],
        }
        connection.execute(f"CREATE TEMP TABLE repeats AS {REPEATS}", parameters)
        connection.sql("SELECT * FROM repeats WHERE kind != 'held out too'").to_parquet(
            str(temporary), compression="zstd"
        )
        counts = dict(connection.execute("SELECT kind, count(*) FROM repeats GROUP BY kind").fetchall())
    return {kind: counts.get(kind, 0) for kind in ("leak", "duplicate", "held out too")}


_SPLITS = ("labeled", "unlabeled", "validation", "test")
