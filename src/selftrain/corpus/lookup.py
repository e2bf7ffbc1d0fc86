"""Images by key: for the few that a person looks at."""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from selftrain.corpus.keys import shard_of
from selftrain.corpus.manifest import part_path
from selftrain.corpus.reader import ShardReader

if TYPE_CHECKING:
    import polars as pl


def find_rows(split_folder: Path, keys: Iterable[int]) -> "pl.DataFrame":
    """The manifest rows of some keys; only their own shards' parts are read, and unknown keys have no row."""
    import polars as pl

    by_shard: dict[int, list[int]] = defaultdict(list)
    for key in set(keys):
        by_shard[shard_of(key)].append(key)
    columns = ["key", "format", "sha256", "shard", "offset", "size", "label", "source"]
    schema = {
        "key": pl.Int64,
        "format": pl.String,
        "sha256": pl.Binary,
        "shard": pl.String,
        "offset": pl.Int64,
        "size": pl.Int32,
        "label": pl.Int32,
        "source": pl.String,
    }
    rows = [pl.DataFrame(schema=schema)]
    for shard, wanted in sorted(by_shard.items()):
        part = part_path(split_folder, shard)
        if part.exists():
            found = pl.read_parquet(part, columns=columns, glob=False)
            rows.append(found.filter(pl.col("key").is_in(wanted)))
    return pl.concat(rows)


def read_rows(split_folder: Path, rows: "pl.DataFrame") -> Iterator[tuple[int, bytes]]:
    """(key, bytes) of each manifest row."""
    with ShardReader(split_folder) as reader:
        for row in rows.iter_rows(named=True):
            yield row["key"], reader.read(row["shard"], row["offset"], row["size"])
