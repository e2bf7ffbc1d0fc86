"""Reading images in training and prediction: the index in memory, the pixels on demand."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from PIL import Image

from selftrain.images.decode import decode
from selftrain.images.reader import ShardReader
from selftrain.plumbing.errors import UserError
from selftrain.plumbing.locks import Reading
from selftrain.tables.keys import SPLITS
from selftrain.tables.manifest import iter_manifest


@dataclass(frozen=True)
class ImageIndex:
    """Where each image of a split lies: 32 bytes an image and the shards' names. All arrays are (N,)."""

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
            self.keys[rows],
            self.shard[rows],
            self.offset[rows],
            self.size[rows],
            self.xxh3[rows],
            self.labels[rows],
        )


def load_index(split_folder: Path) -> ImageIndex:
    """Read a split's manifest into an index."""
    columns = ["key", "shard", "offset", "size", "xxh3", "label"]
    shards: list[str] = []
    parts: list[list[NDArray[np.int64]]] = [[] for _ in columns]
    for _, table in iter_manifest(split_folder, columns):
        names = table.column("shard").combine_chunks().dictionary_encode()
        places = pc.add(names.indices, pa.scalar(len(shards), pa.int32()))
        shards.extend(names.dictionary.to_pylist())
        for part, column in zip(parts, ("key", places, "offset", "size", "xxh3", "label"), strict=True):
            values = table.column(column) if isinstance(column, str) else column
            part.append(pc.fill_null(values, -1).to_numpy(zero_copy_only=False))
    arrays = [np.concatenate(part) if part else np.empty(0, np.int64) for part in parts]
    keys, shard, offset, size, xxh3, labels = arrays
    return ImageIndex(
        split_folder,
        shards,
        keys.astype(np.int64),
        shard.astype(np.int32),
        offset.astype(np.int64),
        size.astype(np.int32),
        xxh3.astype(np.int64),
        labels.astype(np.int32),
    )


def load_splits(corpus: Path, splits: Sequence[str]) -> ImageIndex:
    """One index over several splits of a corpus."""
    indexes = [load_index(corpus / split) for split in splits]
    starts = np.cumsum([0, *(len(index.shards) for index in indexes)])
    return ImageIndex(
        corpus,
        [f"{split}/{shard}" for split, index in zip(splits, indexes, strict=True) for shard in index.shards],
        np.concatenate([index.keys for index in indexes]),
        np.concatenate([index.shard + start for index, start in zip(indexes, starts, strict=False)]).astype(np.int32),
        np.concatenate([index.offset for index in indexes]),
        np.concatenate([index.size for index in indexes]),
        np.concatenate([index.xxh3 for index in indexes]),
        np.concatenate([index.labels for index in indexes]),
    )


class ImageLoader:
    """Decodes images of one split by their place in an index. Opens shards lazily, so that it can be forked.

    As long as it lives, `ingest` of the corpus waits.
    """

    def __init__(self, index: ImageIndex) -> None:
        self.index = index
        folder = index.split_folder
        self._reading = Reading(folder.parent if folder.name in SPLITS else folder)
        self._reader = ShardReader(index.split_folder)

    def another(self, uniform: float) -> Image.Image:
        """Some image of the index for a number from 0 to 1, all equally likely."""
        return self.image(min(int(uniform * len(self.index)), len(self.index) - 1))

    def image(self, row: int) -> Image.Image:
        """The decoded RGB image at a place in the index. Raises UserError naming shard and key if it is damaged."""
        index = self.index
        shard = index.shards[index.shard[row]]
        data = self._reader.read(shard, int(index.offset[row]), int(index.size[row]), int(index.xxh3[row]))
        try:
            return decode(data)
        except UserError as error:
            raise UserError(
                f"{index.split_folder / shard}: image {index.keys[row]} {error}, though it was whole when ingested; "
                "restore the shard with `dvc checkout`"
            ) from None
