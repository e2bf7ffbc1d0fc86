"""Near copies of held-out images in the pool: re-encoded, resized, slightly cropped, mirrored.

Two steps. Difference hashes of the pool and of the held-out images, upright and mirrored, give candidates: all pairs
within ``MAX_DISTANCE`` bits. Each candidate is then looked at: the pool image's thumbnail is compared with those of the
held-out image's likely crops, upright and mirrored, and is a copy if the best correlation is ``MIN_CORRELATION``.
Both thresholds were set on CIFAR-10's test images (docs/leaks.md has the figures).
"""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from selftrain.images.decode import decode
from selftrain.images.reader import read_rows
from selftrain.tables.manifest import find_rows, iter_manifest

if TYPE_CHECKING:
    import pyarrow as pa

MAX_DISTANCE = 12
"""Bits, of 64."""
MIN_CORRELATION = 0.96
MIN_SIDE = 24
"""Pixels a side below which an image shows too little to tell a copy from a likeness."""
BANDS = 4
POOL_CHUNK = 2**22
"""Pool images whose hashes are compared at a time."""
BLOCK = 2**22
"""Pairs of hashes compared at a time: 32 MiB."""
LOOKED_AT = 2**16
"""Pool images whose thumbnails are in memory at a time: 200 MiB."""
THUMBNAIL = 16
CROPS = (0.0, 0.05, 0.1)
"""Shares of each side that a crop leaves out."""

COLUMNS = ["key", "width", "height", "dhash"]

UInt64Array = NDArray[np.uint64]
Int64Array = NDArray[np.int64]


def near_copies(corpus: Path) -> list[tuple[int, int, float]]:
    """(pool key, key of the held-out image that it copies, correlation), one for each copy in the pool."""
    keys, hashes = [], []
    for split in ("validation", "test"):
        for _, table in iter_manifest(corpus / split, [*COLUMNS, "dhash_mirrored"]):
            large = _large_enough(table)
            for column in ("dhash", "dhash_mirrored"):
                keys.append(table["key"].to_numpy()[large])
                hashes.append(table[column].to_numpy().view(np.uint64)[large])
    held_out, held_out_hashes = np.concatenate(keys), np.concatenate(hashes)
    found: dict[int, tuple[int, float]] = {}
    for pool_keys, pool_hashes in _pool_chunks(corpus / "unlabeled"):
        rows, others = near_pairs(pool_hashes, held_out_hashes, MAX_DISTANCE)
        # Pairs come sorted by their place in the pool: cut them where LOOKED_AT images of it are full.
        full = np.searchsorted(
            np.cumsum(np.diff(rows, prepend=-1) > 0), np.arange(LOOKED_AT, len(rows), LOOKED_AT), "right"
        )
        for part in np.split(np.arange(len(rows)), full):
            for pool_key, other_key, correlation in _looked_at(corpus, pool_keys[rows[part]], held_out[others[part]]):
                if correlation >= MIN_CORRELATION and correlation > found.get(pool_key, (0, 0.0))[1]:
                    found[pool_key] = (other_key, correlation)
    return [(key, *found[key]) for key in sorted(found)]


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
        large = _large_enough(table)
        keys.append(table["key"].to_numpy()[large])
        hashes.append(table["dhash"].to_numpy().view(np.uint64)[large])
        if sum(map(len, keys)) >= POOL_CHUNK:
            yield np.concatenate(keys), np.concatenate(hashes)
            keys, hashes = [], []
    if keys:
        yield np.concatenate(keys), np.concatenate(hashes)


def _large_enough(table: "pa.Table") -> NDArray[np.bool_]:
    sides = np.minimum(table["width"].to_numpy(), table["height"].to_numpy())
    return np.asarray(sides >= MIN_SIDE)


def _looked_at(corpus: Path, pool_keys: Int64Array, other_keys: Int64Array) -> Iterator[tuple[int, int, float]]:
    """Each candidate pair with its correlation; every image is decoded once."""
    pool_distinct, pool_rows = np.unique(pool_keys, return_inverse=True)
    thumbnails = np.empty((len(pool_distinct), 3 * THUMBNAIL**2), np.float32)
    for key, image in _images(corpus / "unlabeled", pool_distinct):
        thumbnails[np.searchsorted(pool_distinct, key)] = thumbnail(image)
    order = np.argsort(other_keys, kind="stable")
    distinct, starts = np.unique(other_keys[order], return_index=True)
    candidates = dict(zip(distinct.tolist(), np.split(pool_rows[order], starts[1:]), strict=True)) if len(order) else {}
    for split in ("validation", "test"):
        for other_key, image in _images(corpus / split, distinct):
            rows = candidates[other_key]
            correlations = (thumbnails[rows] @ crops(image).T).max(axis=1)  # (candidates,)
            for row, correlation in zip(rows, correlations, strict=True):
                yield int(pool_distinct[row]), other_key, float(correlation)


def _images(split_folder: Path, keys: Int64Array) -> Iterator[tuple[int, Image.Image]]:
    for key, data in read_rows(split_folder, find_rows(split_folder, keys.tolist())):
        yield key, decode(data)


def thumbnail(image: Image.Image, box: tuple[float, float, float, float] | None = None) -> NDArray[np.float32]:
    """A tiny RGB version of a part of an image, less its mean, of length one; zero for a plain colour."""
    small = image.resize((THUMBNAIL, THUMBNAIL), Image.Resampling.BILINEAR, box=box)
    values = np.asarray(small, np.float32).reshape(-1)
    values = values - values.mean()
    return np.asarray(values / max(float(np.linalg.norm(values)), 1e-6), np.float32)


def crops(image: Image.Image) -> NDArray[np.float32]:
    """Thumbnails (crops, pixels) of an image's likely crops, upright and mirrored."""
    found = []
    for side in (image, ImageOps.mirror(image)):
        for share in CROPS:
            places = (0.0, 0.5, 1.0) if share else (0.0,)
            width, height = side.width * (1 - share), side.height * (1 - share)
            for across in places:
                for down in places:
                    left, top = across * (side.width - width), down * (side.height - height)
                    found.append(thumbnail(side, (left, top, left + width, top + height)))
    return np.stack(found)
