"""Altered copies of held-out images in the pool: what to compare, and with what.

Two steps. Difference hashes of the pool, and of the held-out images as likely frames show them, upright and mirrored,
give candidates: all pairs within ``MAX_DISTANCE`` bits. Each candidate is then looked at, see ``copies.py``.
Both thresholds were set on photographs and checked on others (docs/leaks.md has the figures).
"""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from selftrain.corpus.copies import FRAMES, MIN_AGREEMENT, agreement, picture_of, small_grey, thumbnail
from selftrain.corpus.near_hashes import Int64Array, UInt64Array, near_pairs
from selftrain.corpus.verdicts import FrameHashes, Verdicts
from selftrain.images.decode import decode
from selftrain.images.reader import read_rows
from selftrain.plumbing.engine import Engine
from selftrain.tables.keys import shard_of_part
from selftrain.tables.manifest import find_rows, in_groups, iter_manifest, manifest_parts

if TYPE_CHECKING:
    import pyarrow as pa

MAX_DISTANCE = 10
"""Bits, of 64."""
MIN_SIDE = 24
"""Pixels a side below which an image shows too little to tell a copy from a likeness."""
MIN_BITS = 3
"""Set bits below which an image is blank, of the hash of either side."""
POOL_CHUNK = 2**22
"""Pool images whose hashes are compared at a time."""
HELD_OUT = 2**11
"""Held-out images whose frames are in memory at a time: 300 MiB."""

VERDICTS = "held_out"
COLUMNS = ["key", "width", "height", "dhash", "dhash_mirrored", "xxh3"]


def near_copies(corpus: Path, engine: Engine) -> list[tuple[int, int, float]]:
    """(pool key, key of the held-out image that it copies, agreement), one for each copy in the pool.

    Of several held-out images the one that agrees most is told, of equals the first.
    """
    verdicts, frames = Verdicts(corpus, VERDICTS), FrameHashes(corpus)
    found: dict[int, tuple[float, int, int, int]] = {}
    units = _comparisons(corpus, frames)
    for unit, (copies, contents, agreements) in engine.done(partial(Comparer, corpus), units, _name, "near copies"):
        verdicts.add(contents, agreements)
        for key, place, agrees in copies:
            copy = (agrees, -unit.number, -place, int(unit.held_out.keys[place]))
            found[key] = max(copy, found.get(key, copy))
    frames.save()
    verdicts.save()
    return [(key, of_key, agrees) for key, (agrees, _, _, of_key) in sorted(found.items())]


@dataclass(frozen=True)
class Hashed:
    """Images of a split that can be compared, (N,) each."""

    keys: Int64Array
    contents: Int64Array
    """Hashes of their bytes."""
    hashes: UInt64Array
    """Of what they look like."""


NO_IMAGES = Hashed(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.uint64))


def _chunks(split_folder: Path, size: int, shards: list[int] | None = None) -> Iterator[Hashed]:
    """A split's images, or those of some shards, about so many at a time."""
    parts: list[Hashed] = []
    for _, table in iter_manifest(split_folder, COLUMNS, shards):
        shown = comparable(table)
        keys, contents, looks = (table[name].to_numpy()[shown] for name in ("key", "xxh3", "dhash"))
        for start in range(0, len(keys), size):
            some = slice(start, start + size)
            parts.append(Hashed(keys[some], contents[some], looks[some].view(np.uint64)))
            if sum(len(part.keys) for part in parts) >= size:
                yield _together(parts)
                parts = []
    if parts:
        yield _together(parts)


def _together(parts: list[Hashed]) -> Hashed:
    names = ("keys", "contents", "hashes")
    return Hashed(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))


def _frame_hashes(split_folder: Path, held_out: Hashed, frames: FrameHashes) -> UInt64Array:
    """The hashes of what every frame shows of held-out images, one image after the other."""
    contents = dict(zip(held_out.keys.tolist(), held_out.contents.tolist(), strict=True))
    unknown = [key for key, content in contents.items() if frames.get(content) is None]
    for key, image in images_of(split_folder, np.array(unknown, np.int64)):
        frames.add(contents[key], picture_of(image).hashes)
    known = [frames.get(content) for content in contents.values()]
    return np.concatenate([np.empty(0, np.uint64), *(hashes for hashes in known if hashes is not None)])


@dataclass(frozen=True)
class Comparison:
    """Some held-out images, to be compared with some shards of the pool."""

    number: int
    split: str
    held_out: Hashed
    hashes: UInt64Array
    """Of what every frame shows of the held-out images, (H · frames,)."""
    shards: list[int]


Compared = tuple[list[tuple[int, int, float]], Int64Array, list[float]]
"""Copies (pool key, place of the held-out image, agreement); what was looked at: contents (N, 2) and agreements."""


def _comparisons(corpus: Path, frames: FrameHashes) -> Iterator[Comparison]:
    numbers = itertools.count()
    for split in ("validation", "test"):
        for held_out in _chunks(corpus / split, HELD_OUT):
            hashes = _frame_hashes(corpus / split, held_out, frames)
            for parts in in_groups(manifest_parts(corpus / "unlabeled"), POOL_CHUNK):
                shards = [shard_of_part(part.name) for part in parts]
                yield Comparison(next(numbers), split, held_out, hashes, shards)


def _name(unit: Comparison) -> str:
    return f"near copies of {unit.split} images in the shards from {unit.shards[0]} on"


class Comparer:
    """Compares; what was found before is not looked at again."""

    def __init__(self, corpus: Path) -> None:
        self.corpus, self.verdicts = corpus, Verdicts(corpus, VERDICTS)

    def __call__(self, unit: Comparison) -> Compared:
        """The copies of a unit's held-out images among its shards' images."""
        pool = _together([NO_IMAGES, *_chunks(self.corpus / "unlabeled", POOL_CHUNK, unit.shards)])
        rows, places = near_pairs(pool.hashes, unit.hashes, MAX_DISTANCE)
        near = np.unique(np.stack([rows, places // (2 * len(FRAMES))], axis=1), axis=0)
        contents = np.stack([pool.contents[near[:, 0]], unit.held_out.contents[near[:, 1]]], axis=1)
        agreements = self.verdicts.of(contents).copy()
        unknown = np.flatnonzero(np.isnan(agreements))
        agreements[unknown] = self._looked_at(unit, pool, near[unknown])
        copies = [
            (int(pool.keys[row]), place, agrees)
            for (row, place), agrees in zip(near.tolist(), agreements.tolist(), strict=True)
            if agrees >= MIN_AGREEMENT
        ]
        return copies, contents[unknown], agreements[unknown].tolist()

    def _looked_at(self, unit: Comparison, pool: Hashed, near: Int64Array) -> NDArray[np.float32]:
        """The agreement of pairs (N, 2), places in the pool and among the held-out images."""
        agreements = np.zeros(len(near), np.float32)
        held_out = np.unique(unit.held_out.keys[near[:, 1]])
        pictures = {key: picture_of(image) for key, image in images_of(self.corpus / unit.split, held_out)}
        partners: dict[int, list[int]] = {}
        for pair, (row, _) in enumerate(near.tolist()):
            partners.setdefault(int(pool.keys[row]), []).append(pair)
        # Every image of the pool is decoded once.
        for key, image in images_of(self.corpus / "unlabeled", np.array(sorted(partners), np.int64)):
            seen, grey = thumbnail(image), small_grey(image)
            for pair in partners[key]:
                agreements[pair] = agreement(pictures[int(unit.held_out.keys[near[pair, 1]])], seen, grey)
        return agreements


def comparable(table: "pa.Table") -> NDArray[np.bool_]:
    """Which images of a manifest show enough to tell a copy from a likeness, (N,).

    Blank ones are all alike: a thousand of them would be half a million pairs.
    """
    sides = np.minimum(table["width"].to_numpy(), table["height"].to_numpy())
    bits = [np.bitwise_count(table[name].to_numpy().view(np.uint64)) for name in ("dhash", "dhash_mirrored")]
    return np.asarray((sides >= MIN_SIDE) & (np.maximum(*bits) >= MIN_BITS))


def images_of(split_folder: Path, keys: Int64Array) -> Iterator[tuple[int, Image.Image]]:
    """Some images of a split, decoded, each with its key."""
    for key, data in read_rows(split_folder, find_rows(split_folder, keys.tolist())):
        yield key, decode(data)
