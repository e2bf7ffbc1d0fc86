"""Altered copies inside the pool: of each group of images that show the same picture, the best one stays.

Two images of the pool are compared if their hashes, one perhaps mirrored, differ in at most ``MAX_DISTANCE`` bits
(``hash_pairs.py``): what was re-encoded, resized, recoloured or mirrored. There are many more pairs in a pool than with
held-out images, so crops are not looked for. The best image has the most pixels; of equal ones the first stays.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from selftrain.corpus.copies import MIN_AGREEMENT, agreement, picture_of, small_grey, thumbnail
from selftrain.corpus.hash_pairs import hash_pairs
from selftrain.corpus.near import images_of
from selftrain.corpus.verdicts import Int64Array, Verdicts
from selftrain.plumbing.engine import Engine

LOOKED_AT, MOST_PAIRS = 2**11, 2**14
"""Images whose partners are in memory at a time, and pairs of them."""


def pool_copies(corpus: Path, left_out: set[int], engine: Engine) -> list[tuple[int, int, float]]:
    """(key, key of the better image of the same picture, agreement), one for each copy in the pool.

    ``left_out`` are images that are no part of the pool any more.
    """
    found = hash_pairs(corpus / "unlabeled", left_out, engine)
    pairs, contents, areas = (found.select(name, f"other_{name}").to_numpy() for name in ("key", "xxh3", "area"))
    verdicts = Verdicts(corpus, "pool")
    agreements = verdicts.of(contents).copy()
    unknown = np.flatnonzero(np.isnan(agreements))
    # Units come back in any order.
    for unit, seen in engine.done(partial(Comparer, corpus), _units(pairs, unknown), _name, "copies in the pool"):
        agreements[unit.places] = seen
        verdicts.add(contents[unit.places], seen)
    verdicts.save()
    agree = agreements >= MIN_AGREEMENT
    return _all_but_the_best(pairs[agree], agreements[agree], areas[agree])


@dataclass(frozen=True)
class Comparison:
    """Pairs of images that nobody has looked at."""

    keys: Int64Array  # (N, 2)
    places: Int64Array  # (N,)
    """Among all pairs."""


def _units(pairs: Int64Array, unknown: Int64Array) -> Iterator[Comparison]:
    """Pairs of so many first images at a time. ``pairs`` (N, 2) are sorted, ``unknown`` some of their places."""
    _, starts = np.unique(pairs[unknown, 0], return_index=True)
    for some in np.split(unknown, starts[LOOKED_AT::LOOKED_AT]):
        for start in range(0, len(some), MOST_PAIRS):
            places = some[start : start + MOST_PAIRS]
            yield Comparison(pairs[places], places)


def _name(unit: Comparison) -> str:
    return f"copies of the pool's images from {unit.keys[0, 0]} on"


class Comparer:
    """Looks at pairs of the pool's images."""

    def __init__(self, corpus: Path) -> None:
        self.split_folder = corpus / "unlabeled"

    def __call__(self, unit: Comparison) -> list[float]:
        """The agreement of each pair."""
        seen = {key: (thumbnail(image), small_grey(image)) for key, image in self._images(unit.keys[:, 1])}
        partners: dict[int, list[int]] = {}
        for place, first in enumerate(unit.keys[:, 0].tolist()):
            partners.setdefault(first, []).append(place)
        found = np.zeros(len(unit.keys), np.float32)
        for first, image in self._images(unit.keys[:, 0]):
            picture = picture_of(image)
            for place in partners[first]:
                found[place] = agreement(picture, *seen[int(unit.keys[place, 1])])
        return [float(each) for each in found]

    def _images(self, keys: Int64Array) -> Iterator[tuple[int, Image.Image]]:
        return images_of(self.split_folder, np.unique(keys))


def _all_but_the_best(
    pairs: Int64Array, agreements: NDArray[np.float32], areas: Int64Array
) -> list[tuple[int, int, float]]:
    """Of each group of connected images all but the best, each with the best and its own closest agreement.

    Pairs of keys (N, 2), what they agree (N,), and the pixels of each image (N, 2).
    """
    if not len(pairs):
        return []
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    keys, places = np.unique(pairs, return_inverse=True)
    places = places.reshape(pairs.shape)  # (N, 2), into keys
    edges = coo_array((np.ones(len(pairs), bool), tuple(places.T)), shape=(len(keys), len(keys)))
    groups, group_of = connected_components(edges, directed=False)
    closest, area_of = np.zeros(len(keys), np.float32), np.zeros(len(keys), np.int64)
    np.maximum.at(closest, places, agreements[:, None])
    area_of[places] = areas
    best_first = np.lexsort((keys, -area_of, group_of))
    best = best_first[np.searchsorted(group_of[best_first], np.arange(groups))]  # (groups,)
    others = np.setdiff1d(np.arange(len(keys)), best)
    found = zip(keys[others], keys[best[group_of[others]]], closest[others], strict=True)
    return [(int(key), int(of), float(agrees)) for key, of, agrees in found]
