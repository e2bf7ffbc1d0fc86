"""`select`, held against a filter with a copy of what it lets through, and against a window query that ranks it.

    python benchmarks/speed/selecting.py                                  # 10 million rows, 1,000 classes
    python benchmarks/speed/selecting.py --rows 100000 --classes 10       # seconds

The table has no log-probabilities, since this policy reads none. One row in a hundred is a copy of another.
"""

import argparse
import contextlib
import io
import json
import tempfile
from pathlib import Path

import duckdb
import numpy as np
import polars as pl
import pyarrow as pa
from measure import QUICK, Table, take_turns

from selftrain.params.select import SelectConfig
from selftrain.selection.select import select
from selftrain.tables.keys import make_key, part_name
from selftrain.tables.manifest import part_path
from selftrain.tables.parquet import write_arrow, write_frame
from selftrain.tables.predictions import EMBEDDED_CLASSES, MADE_FROM


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=20_000 if QUICK else 10_000_000)
    parser.add_argument("--classes", type=int, default=10 if QUICK else 1000)
    parser.add_argument("--rows-a-part", type=int, default=5_000 if QUICK else 100_000)
    options = parser.parse_args()
    table = Table("select")
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        write_tables(folder, options.rows, options.classes, options.rows_a_part)
        config = SelectConfig(threshold=0.3)
        parts = f"{folder}/table/*.parquet"
        window = (
            "SELECT *, row_number() OVER (PARTITION BY label ORDER BY confidence DESC, key) AS rank "
            f"FROM '{parts}' WHERE confidence > 0.3"
        )

        def ours() -> None:
            with contextlib.redirect_stdout(io.StringIO()):
                select(config, 0, folder / "table", folder / "corpus", folder / "out")

        works = {
            "ours": ours,
            "a filter and a copy": lambda: (
                pl.scan_parquet(parts).filter(pl.col("confidence") > 0.3).sink_parquet(folder / "copy.parquet")
            ),
            "a window query": lambda: duckdb.sql(f"COPY ({window}) TO '{folder}/rank.parquet'"),
        }
        seconds = take_turns(works, 1)
        table.compare(f"{options.rows:,} rows, {options.classes:,} classes", options.rows, "ours", seconds, "rows/s")
    table.write()


def write_tables(folder: Path, rows: int, classes: int, rows_a_part: int) -> None:
    """A prediction table with the corpus that it is of."""
    rng, names = np.random.default_rng(0), [str(label) for label in range(classes)]
    copies: list[int] = []
    for shard in range(-(-rows // rows_a_part)):
        count = min(rows_a_part, rows - shard * rows_a_part)
        keys = make_key("unlabeled", shard, 0) + np.arange(count)
        # Long-tailed, as pools are.
        labels = (classes * rng.random(count) ** 2).astype(np.int32)
        table = pa.table({"key": keys, "label": labels, "confidence": rng.random(count, np.float32)})
        stamps = {MADE_FROM: b"model:with:images", EMBEDDED_CLASSES: json.dumps(names).encode()}
        write_arrow(table.replace_schema_metadata(stamps), folder / "table" / part_name(shard))
        write_arrow(pa.table({"key": keys}), part_path(folder / "corpus" / "unlabeled", shard))
        copies += keys[::100].tolist()
    columns = {"key": copies, "kind": ["duplicate"] * len(copies), "match": ["bytes"] * len(copies)}
    write_frame(pl.DataFrame(columns), folder / "corpus" / "duplicates.parquet")
    (folder / "corpus" / "classes.json").write_text(json.dumps(names))


if __name__ == "__main__":
    main()
