"""Image bytes by key: for the few images that a person looks at."""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path

from selftrain.corpus.keys import shard_of
from selftrain.corpus.manifest import part_path
from selftrain.corpus.reader import ShardReader


def read_images(split_folder: Path, keys: Iterable[int]) -> Iterator[tuple[int, str, bytes]]:
    """(key, format, bytes) of each image, shard by shard; only their own shards' manifest parts are read."""
    import polars as pl

    by_shard: dict[int, list[int]] = defaultdict(list)
    for key in set(keys):
        by_shard[shard_of(key)].append(key)
    with ShardReader(split_folder) as reader:
        for shard, wanted in sorted(by_shard.items()):
            rows = pl.scan_parquet(part_path(split_folder, shard)).filter(pl.col("key").is_in(wanted))
            for row in rows.select("key", "format", "shard", "offset", "size").collect().iter_rows(named=True):
                yield row["key"], row["format"], reader.read(row["shard"], row["offset"], row["size"])
