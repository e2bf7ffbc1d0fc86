"""The manifest: one row an image, one Parquet part a shard, row order = tar order.

The manifest is the index of the corpus: its ``shard, offset, size`` lead straight to an image's
bytes, and ``xxh3`` is compared with them whenever they are read. ``sha256`` names the file, ``pixels`` the picture,
``dhash`` its look.
"""

import hashlib
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from selftrain.plumbing.errors import UserError
from selftrain.tables.keys import part_name, shard_of, shard_of_part
from selftrain.tables.parquet import read_arrow, read_frame, reading, row_count, scan

if TYPE_CHECKING:
    import polars as pl
    import pyarrow as pa


def manifest_schema() -> "pa.Schema":
    """The columns of a manifest part."""
    import pyarrow as pa

    return pa.schema(
        [
            pa.field("key", pa.int64(), nullable=False),
            pa.field("shard", pa.string(), nullable=False),
            pa.field("offset", pa.int64(), nullable=False),
            pa.field("size", pa.int32(), nullable=False),
            pa.field("label", pa.int32()),
            pa.field("width", pa.int32(), nullable=False),
            pa.field("height", pa.int32(), nullable=False),
            pa.field("format", pa.string(), nullable=False),
            pa.field("xxh3", pa.int64(), nullable=False),
            pa.field("sha256", pa.binary(32), nullable=False),
            pa.field("pixels", pa.binary(16), nullable=False),
            pa.field("dhash", pa.int64(), nullable=False),
            pa.field("dhash_mirrored", pa.int64(), nullable=False),
            pa.field("source", pa.string(), nullable=False),
        ]
    )


def part_path(split_folder: Path, shard: int) -> Path:
    """The manifest part of a shard."""
    return split_folder / "manifest" / part_name(shard)


def manifest_parts(split_folder: Path) -> list[Path]:
    """A split's manifest parts in shard order. Raises UserError if the split was never ingested."""
    folder = split_folder / "manifest"
    if not folder.is_dir():
        raise UserError(f"{split_folder}: no corpus split there; run `dvc repro ingest`")
    return sorted(folder.glob("part-*.parquet"))


def in_groups(parts: Iterable[Path], rows: int) -> Iterator[list[Path]]:
    """Parts of a table, so many at a time that they have about so many rows."""
    group: list[Path] = []
    count = 0
    for part in parts:
        group.append(part)
        count += row_count(part)
        if count >= rows:
            yield group
            group, count = [], 0
    if group:
        yield group


def iter_manifest(
    split_folder: Path, columns: list[str], shards: Collection[int] | None = None
) -> Iterator[tuple[int, "pa.Table"]]:
    """A split's manifest, or that of some shards, one by one: (shard number, table with the columns asked for)."""
    import pyarrow.parquet as pq

    paths = (
        manifest_parts(split_folder) if shards is None else [part_path(split_folder, each) for each in sorted(shards)]
    )
    for path in paths:
        with reading(path):
            made_by_older = not set(columns) <= set(pq.read_schema(path).names)
        if made_by_older:
            raise UserError(f"{path}: made by an older version; remove {split_folder.parent} and run `dvc repro`")
        yield shard_of_part(path.name), read_arrow(path, columns)


def read_manifest(split_folder: Path, columns: list[str]) -> "pa.Table":
    """A split's whole manifest, the columns asked for; empty splits give an empty table."""
    import pyarrow as pa

    tables = [table for _, table in iter_manifest(split_folder, columns)]
    schema = manifest_schema()
    empty = pa.schema([schema.field(name) for name in columns]).empty_table()
    return pa.concat_tables([empty, *tables])


def scan_manifest(split_folder: Path) -> "pl.LazyFrame":
    """A split's manifest as a lazy polars frame."""
    import polars as pl

    parts = manifest_parts(split_folder)
    if not parts:
        return pl.LazyFrame(pl.from_arrow(manifest_schema().empty_table()))
    return scan(parts)


def manifest_digest(split_folder: Path) -> str:
    """A short hash of a split's manifest, and so, through its sha256 column, of the split's images and labels."""
    digest = hashlib.sha256()
    for path in manifest_parts(split_folder):
        digest.update(path.name.encode())
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:32]


def find_rows(split_folder: Path, keys: Iterable[int]) -> "pl.DataFrame":
    """The manifest rows of some keys; only their own shards' parts are read, and unknown keys have no row."""
    import polars as pl

    by_shard: dict[int, list[int]] = defaultdict(list)
    for key in set(keys):
        by_shard[shard_of(key)].append(key)
    columns = ["key", "format", "sha256", "shard", "offset", "size", "xxh3", "label", "source"]
    schema = {
        "key": pl.Int64,
        "format": pl.String,
        "sha256": pl.Binary,
        "shard": pl.String,
        "offset": pl.Int64,
        "size": pl.Int32,
        "xxh3": pl.Int64,
        "label": pl.Int32,
        "source": pl.String,
    }
    rows = [pl.DataFrame(schema=schema)]
    for shard, wanted in sorted(by_shard.items()):
        part = part_path(split_folder, shard)
        if part.exists():
            found = read_frame(part, columns)
            rows.append(found.filter(pl.col("key").is_in(wanted)))
    return pl.concat(rows)
