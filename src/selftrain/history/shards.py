"""Whether a split's shards are what its manifest says."""

from pathlib import Path

from selftrain.images.reader import DEEP_COLUMNS, ShardReader
from selftrain.plumbing.stores import is_url, version_of
from selftrain.tables.manifest import iter_manifest, scan_manifest
from selftrain.tables.parquet import collect
from selftrain.tables.pointers import Pointer, read_pointer


def shard_troubles(split_folder: Path, deep: bool) -> list[str]:
    """What is wrong with a split's shards, one line each; shards in stores are only looked at if ``deep``.

    Missing and truncated shards are found, and those that stay in place and have changed; ``deep`` reads every image
    and compares its hash.
    """
    return _unlike_their_hashes(split_folder) if deep else _missing_or_short(split_folder)


def _missing_or_short(split_folder: Path) -> list[str]:
    import polars as pl

    end = (pl.col("offset") + pl.col("size")).max().alias("end")
    ends = collect(scan_manifest(split_folder).group_by("shard").agg(end).sort("shard"), split_folder)
    troubles = []
    for shard, needed in ends.iter_rows():
        path = split_folder / shard
        pointer = None if path.exists() else read_pointer(split_folder, shard)
        if pointer is not None:
            troubles += _not_the_same(pointer, pointer.opened_from(split_folder))
        elif not path.is_file():
            troubles.append(f"{shard} is missing")
        elif path.stat().st_size < needed:
            troubles.append(f"{shard} is shorter than its manifest says")
    return troubles


def _not_the_same(pointer: Pointer, location: str) -> list[str]:
    if is_url(location):
        return []
    if not Path(location).exists():
        return [f"{location} is missing"]
    return [] if version_of(location) == pointer.version else [f"{location} has changed since it was ingested"]


def _unlike_their_hashes(split_folder: Path) -> list[str]:
    with ShardReader(split_folder) as reader:
        return [line for _, part in iter_manifest(split_folder, DEEP_COLUMNS) for line in reader.damaged(part)]
