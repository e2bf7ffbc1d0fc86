"""Where in a shard's file of kept pixels each image has its place: squares of one size, or images as they are."""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from selftrain.tables.keys import place_of, shard_of, split_of
from selftrain.tables.manifest import iter_manifest, part_path
from selftrain.tables.parquet import read_arrow

Shape = tuple[int, int, int]
"""Height, width, 3."""
Layout = Callable[[int], tuple[int, Shape]]
"""From an image's key to the byte where it begins, and its shape."""

SEAL = 8
"""Bytes before each image's pixels."""
KNOWN_SHARDS = 256


def square_bytes(size: int) -> int:
    """What a square takes."""
    return SEAL + size * size * 3


def squares(size: int) -> Layout:
    """All squares are of the same size, so that a key says where."""

    def layout(key: int) -> tuple[int, Shape]:
        return place_of(key) * square_bytes(size), (size, size, 3)

    return layout


class WholeImages:
    """A corpus' images one after the other, as large as the manifest says."""

    def __init__(self, corpus: Path) -> None:
        self.corpus = corpus
        self._shards: OrderedDict[tuple[str, int], tuple[NDArray[np.int64], ...]] = OrderedDict()

    def __call__(self, key: int) -> tuple[int, Shape]:
        """The layout of an image."""
        keys, starts, heights, widths = self._shard(key)
        row = int(np.searchsorted(keys, key))
        return int(starts[row]), (int(heights[row]), int(widths[row]), 3)

    def total_bytes(self, splits: Sequence[str], enough: int) -> int:
        """What all images of some splits take; the rest is not counted where it is more than ``enough`` already."""
        total = 0
        for split in splits:
            for _, table in iter_manifest(self.corpus / split, ["height", "width"]):
                total += len(table) * SEAL + 3 * int(_areas(table).sum())
                if total > enough:
                    return total
        return total

    def _shard(self, key: int) -> tuple[NDArray[np.int64], ...]:
        shard = (split_of(key), shard_of(key))
        if shard not in self._shards:
            table = read_arrow(part_path(self.corpus / shard[0], shard[1]), ["key", "height", "width"])
            keys, heights, widths = (table[name].to_numpy().astype(np.int64) for name in ("key", "height", "width"))
            sizes = SEAL + 3 * _areas(table)
            self._shards[shard] = (keys, np.cumsum(sizes) - sizes, heights, widths)
            if len(self._shards) > KNOWN_SHARDS:
                self._shards.popitem(last=False)
        return self._shards[shard]


def _areas(table: pa.Table) -> NDArray[np.int64]:
    areas: NDArray[np.int64] = table["height"].to_numpy().astype(np.int64) * table["width"].to_numpy()
    return areas
