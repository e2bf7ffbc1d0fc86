"""Where the images of a split lie, from its manifest."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from selftrain.plumbing.columns import Column, taken
from selftrain.tables.manifest import iter_manifest

COLUMNS = ("key", "shard", "offset", "size", "xxh3", "label")


@dataclass(frozen=True)
class ImageIndex:
    """Where each image of a split lies: 36 bytes an image and the shards' names. Arrays are (N,), long ones mapped."""

    split_folder: Path
    shards: list[str]
    keys: NDArray[np.int64]
    shard: NDArray[np.int32]
    """Place in ``shards``."""
    offset: NDArray[np.int64]
    size: NDArray[np.int32]
    xxh3: NDArray[np.int64]
    """Of the image's bytes."""
    labels: NDArray[np.int32]
    """-1 where there is none."""

    def __len__(self) -> int:
        return len(self.keys)

    def take(self, rows: NDArray[np.int64] | NDArray[np.bool_]) -> "ImageIndex":
        """The index of some of the images."""
        return ImageIndex(
            self.split_folder,
            self.shards,
            taken(self.keys, rows),
            taken(self.shard, rows),
            taken(self.offset, rows),
            taken(self.size, rows),
            taken(self.xxh3, rows),
            taken(self.labels, rows),
        )


class IndexColumns:
    """An index that grows by parts of manifests."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.shards = folder, list[str]()
        # In the order of the index's fields.
        types = (np.int64, np.int32, np.int64, np.int32, np.int64, np.int32)
        self._columns: list[Column[Any]] = [Column(each) for each in types]

    def add(self, manifest: pa.Table, rows: NDArray[np.bool_] | None = None, prefix: str = "") -> None:
        """Add the images of a part, or some of them. ``prefix`` leads from the index's folder to that of the part."""
        names = manifest.column("shard").combine_chunks().dictionary_encode()
        places = pc.add(names.indices, pa.scalar(len(self.shards), pa.int32()))
        self.shards.extend(f"{prefix}{name}" for name in names.dictionary.to_pylist())
        for name, column in zip(COLUMNS, self._columns, strict=True):
            values = places if name == "shard" else manifest.column(name)
            array = pc.fill_null(values, -1).to_numpy(zero_copy_only=False)
            column.append(array if rows is None else array[rows])

    def index(self) -> ImageIndex:
        """Nothing can be added after it."""
        return ImageIndex(self.folder, self.shards, *(column.array() for column in self._columns))


def load_index(split_folder: Path, shards: Collection[int] | None = None) -> ImageIndex:
    """Read a split's manifest into an index, or that of some shards."""
    columns = IndexColumns(split_folder)
    for _, table in iter_manifest(split_folder, list(COLUMNS), shards):
        columns.add(table)
    return columns.index()


def load_splits(corpus: Path, splits: Sequence[str]) -> ImageIndex:
    """One index over several splits of a corpus."""
    columns = IndexColumns(corpus)
    for split in splits:
        for _, table in iter_manifest(corpus / split, list(COLUMNS)):
            columns.add(table, prefix=f"{split}/")
    return columns.index()
