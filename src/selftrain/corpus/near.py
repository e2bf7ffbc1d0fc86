"""Altered copies of held-out images in the pool: what to compare, and with what.

Two steps. Difference hashes of the pool, and of the held-out images as likely frames show them, upright and mirrored,
give candidates: all pairs within ``MAX_DISTANCE`` bits. Each candidate is then looked at, see ``copies.py``.
Both thresholds were set on photographs and checked on others (docs/leaks.md has the figures).
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from selftrain.corpus.copies import MIN_AGREEMENT, Picture, agreement, picture_of, small_grey, thumbnail
from selftrain.images.decode import decode
from selftrain.images.reader import read_rows
from selftrain.tables.manifest import find_rows, iter_manifest

if TYPE_CHECKING:
    import pyarrow as pa

MAX_DISTANCE = 10
"""Bits, of 64."""
MIN_SIDE = 24
"""Pixels a side below which an image shows too little to tell a copy from a likeness."""
BANDS = 4
POOL_CHUNK = 2**22
"""Pool images whose hashes are compared at a time."""
BLOCK = 2**22
"""Pairs of hashes compared at a time: 32 MiB."""
HELD_OUT = 2**11
"""Held-out images whose frames are in memory at a time: 300 MiB."""

COLUMNS = ["key", "width", "height", "dhash"]

UInt64Array = NDArray[np.uint64]
Int64Array = NDArray[np.int64]


def near_copies(corpus: Path) -> list[tuple[int, int, float]]:
    """(pool key, key of the held-out image that it copies, agreement), one for each copy in the pool."""
    found: dict[int, tuple[int, float]] = {}
    for held_out in _held_out(corpus):
        keys = np.array(list(held_out), np.int64)
        frames = len(next(iter(held_out.values())).hashes)
        hashes = np.concatenate([picture.hashes for picture in held_out.values()])
        for pool_keys, pool_hashes in _pool_chunks(corpus / "unlabeled"):
            rows, places = near_pairs(pool_hashes, hashes, MAX_DISTANCE)
            pairs = np.unique(np.stack([rows, places // frames], axis=1), axis=0)
            candidates = zip(pool_keys[pairs[:, 0]].tolist(), keys[pairs[:, 1]].tolist(), strict=True)
            for pool_key, other_key, agrees in _looked_at(corpus, candidates, held_out):
                if agrees >= MIN_AGREEMENT and agrees > found.get(pool_key, (0, 0.0))[1]:
                    found[pool_key] = (other_key, agrees)
    return [(key, *found[key]) for key in sorted(found)]


def _held_out(corpus: Path) -> Iterator[dict[int, Picture]]:
    """The held-out images that are large enough, some at a time."""
    for split in ("validation", "test"):
        tables = [table for _, table in iter_manifest(corpus / split, COLUMNS)]
        keys = np.concatenate([np.empty(0, np.int64), *(t["key"].to_numpy()[large_enough(t)] for t in tables)])
        for start in range(0, len(keys), HELD_OUT):
            yield {key: picture_of(image) for key, image in images_of(corpus / split, keys[start : start + HELD_OUT])}


def near_pairs(pool: UInt64Array, others: UInt64Array, max_distance: int) -> tuple[Int64Array, Int64Array]:
    """Every (place in ``pool``, place in ``others``) whose 64-bit hashes differ in at most ``max_distance`` bits.

    Of two such hashes one of four 16-bit bands differs in at most a quarter of the bits (the pigeonhole principle), so
    only pairs that are near in a band are compared whole.
    """
    pairs = [np.empty((0, 2), np.int64)]
    for band in range(BANDS):
        pool_groups, other_groups = _by_band(pool, band), _by_band(others, band)
        other_values = np.array(list(other_groups), dtype=np.uint16)
        other_rows = list(other_groups.values())
        for value, rows in pool_groups.items():
            near = np.flatnonzero(np.bitwise_count(other_values ^ np.uint16(value)) <= max_distance // BANDS)
            if len(near) == 0:
                continue
            candidates = np.concatenate([other_rows[place] for place in near])
            for part in np.array_split(rows, -(-len(rows) * len(candidates) // BLOCK)):
                distances = np.bitwise_count(pool[part][:, None] ^ others[candidates][None])  # (rows, candidates)
                row, candidate = np.nonzero(distances <= max_distance)
                pairs.append(np.stack([part[row], candidates[candidate]], axis=1))
    unique = np.unique(np.concatenate(pairs), axis=0)
    return unique[:, 0], unique[:, 1]


def _by_band(hashes: UInt64Array, band: int) -> dict[int, Int64Array]:
    """Places of the hashes by the value of one of their bands."""
    values = (hashes >> np.uint64(16 * band)).astype(np.uint16)
    order = np.argsort(values, kind="stable")
    distinct, starts = np.unique(values[order], return_index=True)
    return dict(zip(distinct.tolist(), np.split(order, starts[1:]), strict=True)) if len(values) else {}


def _pool_chunks(split_folder: Path) -> Iterator[tuple[Int64Array, UInt64Array]]:
    keys: list[Int64Array] = []
    hashes: list[UInt64Array] = []
    for _, table in iter_manifest(split_folder, COLUMNS):
        large = large_enough(table)
        keys.append(table["key"].to_numpy()[large])
        hashes.append(table["dhash"].to_numpy().view(np.uint64)[large])
        if sum(map(len, keys)) >= POOL_CHUNK:
            yield np.concatenate(keys), np.concatenate(hashes)
            keys, hashes = [], []
    if keys:
        yield np.concatenate(keys), np.concatenate(hashes)


def large_enough(table: "pa.Table") -> NDArray[np.bool_]:
    """Which images of a manifest show enough to tell a copy from a likeness, (N,)."""
    sides = np.minimum(table["width"].to_numpy(), table["height"].to_numpy())
    return np.asarray(sides >= MIN_SIDE)


def _looked_at(
    corpus: Path, candidates: Iterable[tuple[int, int]], held_out: dict[int, Picture]
) -> Iterator[tuple[int, int, float]]:
    """Each candidate pair with its agreement; every pool image is decoded once."""
    partners: dict[int, list[int]] = {}
    for pool_key, other_key in candidates:
        partners.setdefault(pool_key, []).append(other_key)
    for pool_key, image in images_of(corpus / "unlabeled", np.array(sorted(partners), np.int64)):
        seen, grey = thumbnail(image), small_grey(image)
        for other_key in partners[pool_key]:
            yield pool_key, other_key, agreement(held_out[other_key], seen, grey)


def images_of(split_folder: Path, keys: Int64Array) -> Iterator[tuple[int, Image.Image]]:
    """Some images of a split, decoded, each with its key."""
    for key, data in read_rows(split_folder, find_rows(split_folder, keys.tolist())):
        yield key, decode(data)
