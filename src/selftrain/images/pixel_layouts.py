"""Where in a shard's file of kept pixels each image has its place: squares of one size, or images as they are."""

import math
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from selftrain.tables.keys import place_of, shard_of, split_of
from selftrain.tables.manifest import part_path
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

    def mean_bytes(self, key: int) -> int:
        """What the images of a key's shard take in the mean."""
        _, _, heights, widths = self._shard(key)
        return math.ceil(SEAL + 3 * float((heights * widths).mean()))

    def _shard(self, key: int) -> tuple[NDArray[np.int64], ...]:
        shard = (split_of(key), shard_of(key))
        if shard not in self._shards:
            table = read_arrow(part_path(self.corpus / shard[0], shard[1]), ["key", "height", "width"])
            keys, heights, widths = (table[name].to_numpy().astype(np.int64) for name in ("key", "height", "width"))
            sizes = SEAL + 3 * heights * widths
            self._shards[shard] = (keys, np.cumsum(sizes) - sizes, heights, widths)
            if len(self._shards) > KNOWN_SHARDS:
                self._shards.popitem(last=False)
        return self._shards[shard]
