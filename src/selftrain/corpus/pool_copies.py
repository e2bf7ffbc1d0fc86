"""Altered copies inside the pool: of each group of images that show the same picture, the best one stays.

Two images of the pool are compared if their hashes, one perhaps mirrored, differ in at most ``MAX_DISTANCE`` bits: what
was re-encoded, resized, recoloured or mirrored. There are many more pairs in a pool than with held-out images, so crops
are not looked for. The best image has the most pixels; of equal ones the first stays.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from selftrain.corpus.copies import MIN_AGREEMENT, agreement, picture_of, small_grey, thumbnail
from selftrain.corpus.near import comparable, images_of, near_pairs
from selftrain.corpus.verdicts import Int64Array, Verdicts
from selftrain.tables.manifest import iter_manifest

MAX_DISTANCE = 4
"""Bits, of 64."""
LOOKED_AT = 2**11
"""Images whose partners are in memory at a time."""


def pool_copies(corpus: Path, left_out: set[int]) -> list[tuple[int, int, float]]:
    """(key, key of the better image of the same picture, agreement), one for each copy in the pool.

    ``left_out`` are images that are no part of the pool any more.
    """
    import pyarrow as pa

    columns = ["key", "width", "height", "xxh3", "dhash", "dhash_mirrored"]
    table = pa.concat_tables([part for _, part in iter_manifest(corpus / "unlabeled", columns)])
    usable = comparable(table) & ~np.isin(table["key"].to_numpy(), list(left_out))
    keys, contents, widths, heights = (table[name].to_numpy()[usable] for name in ("key", "xxh3", "width", "height"))
    upright, mirrored = (table[name].to_numpy().view(np.uint64)[usable] for name in ("dhash", "dhash_mirrored"))
    rows, others = near_pairs(upright, np.concatenate([upright, mirrored]), MAX_DISTANCE)
    others = others % max(len(keys), 1)
    pairs = np.unique(np.stack([rows, others], axis=1)[rows < others], axis=0)
    verdicts = Verdicts(corpus, "pool")
    agreements = verdicts.of(contents[pairs]).copy()
    unknown = np.isnan(agreements)
    looked_at = [agrees for _, _, agrees in _compared(corpus, keys[pairs[unknown]])]
    verdicts.add(contents[pairs[unknown]], looked_at)
    verdicts.save()
    agreements[unknown] = looked_at
    agrees_enough = agreements >= MIN_AGREEMENT
    copies = pairs[agrees_enough]
    found = [
        (*pair, agrees) for pair, agrees in zip(keys[copies].tolist(), agreements[agrees_enough].tolist(), strict=True)
    ]
    some = np.unique(copies)
    areas = dict(zip(keys[some].tolist(), (widths[some].astype(np.int64) * heights[some]).tolist(), strict=True))
    return _all_but_the_best(found, areas)


def _compared(corpus: Path, pairs: Int64Array) -> Iterator[tuple[int, int, float]]:
    """Pairs of keys (N, 2), sorted by the first, with their agreement, in this order."""
    firsts = np.unique(pairs[:, 0])
    for start in range(0, len(firsts), LOOKED_AT):
        some = firsts[start : start + LOOKED_AT]
        of_some = pairs[(pairs[:, 0] >= some[0]) & (pairs[:, 0] <= some[-1])]
        seen = {key: (thumbnail(image), small_grey(image)) for key, image in _images(corpus, of_some[:, 1])}
        partners: dict[int, list[int]] = {}
        for first, other in of_some.tolist():
            partners.setdefault(first, []).append(other)
        for first, image in _images(corpus, some):
            picture = picture_of(image)
            for other in partners[first]:
                yield first, other, agreement(picture, *seen[other])


def _images(corpus: Path, keys: Int64Array) -> Iterator[tuple[int, Image.Image]]:
    return images_of(corpus / "unlabeled", np.unique(keys))


def _all_but_the_best(pairs: list[tuple[int, int, float]], areas: dict[int, int]) -> list[tuple[int, int, float]]:
    """Of each group of connected images all but the best, each with the best and its own closest agreement."""
    group_of: dict[int, int] = {}

    def root(key: int) -> int:
        while group_of.setdefault(key, key) != key:
            key = group_of[key]
        return key

    closest: dict[int, float] = {}
    for one, other, agrees in pairs:
        group_of[root(other)] = root(one)
        for key in (one, other):
            closest[key] = max(agrees, closest.get(key, -1.0))
    groups: dict[int, list[int]] = {}
    for key in sorted(closest):
        groups.setdefault(root(key), []).append(key)
    found = []
    for members in groups.values():
        best = max(members, key=lambda key: (areas[key], -key))
        found += [(key, best, closest[key]) for key in members if key != best]
    return sorted(found)
