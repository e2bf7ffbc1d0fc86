"""Whether a split's shards are what its manifest says."""

from pathlib import Path

from selftrain.images.reader import ShardReader
from selftrain.plumbing.errors import UserError
from selftrain.tables.manifest import iter_manifest, scan_manifest
from selftrain.tables.parquet import collect


def shard_troubles(split_folder: Path, deep: bool) -> list[str]:
    """What is wrong with a split's shards, one line each; shards behind URLs are only looked at if ``deep``.

    Missing and truncated shards are found; ``deep`` reads every image and compares its hash.
    """
    return _unlike_their_hashes(split_folder) if deep else _missing_or_short(split_folder)


def _missing_or_short(split_folder: Path) -> list[str]:
    import polars as pl

    end = (pl.col("offset") + pl.col("size")).max().alias("end")
    ends = collect(scan_manifest(split_folder).group_by("shard").agg(end).sort("shard"), split_folder)
    troubles = []
    for shard, needed in ends.iter_rows():
        path = split_folder / shard
        if "://" in shard:
            continue
        if not path.is_file():
            troubles.append(f"{shard} is missing")
        elif path.stat().st_size < needed:
            troubles.append(f"{shard} is shorter than its manifest says")
    return troubles


def _unlike_their_hashes(split_folder: Path) -> list[str]:
    columns = ["key", "shard", "offset", "size", "xxh3"]
    troubles = []
    with ShardReader(split_folder) as reader:
        for _, table in iter_manifest(split_folder, columns):
            for key, *where in zip(*(table[name].to_pylist() for name in columns), strict=True):
                try:
                    reader.read(*where)
                except UserError as error:
                    troubles.append(f"image {key}: {error}")
    return troubles
