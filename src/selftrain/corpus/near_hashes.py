"""Pairs of 64-bit hashes that differ in few bits, by multi-index hashing.

Hashes are cut into four bands. Two that differ in few bits differ in very few in one of the bands, so only hashes with
a near band are compared whole (Norouzi, Punjani and Fleet 2012, "Fast search in Hamming space with exact multi-index
hashing").
"""

import itertools
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

Int64Array = NDArray[np.int64]
UInt64Array = NDArray[np.uint64]

BANDS, BITS = 4, 16
BLOCK = 2**18
"""Pairs compared at a time: they stay in the processor's cache."""


def near_pairs(pool: UInt64Array, others: UInt64Array, max_distance: int) -> tuple[Int64Array, Int64Array]:
    """Every (place in ``pool``, place in ``others``) whose hashes differ in at most ``max_distance`` bits, sorted."""
    pairs = [np.empty((0, 2), np.int64)]
    for band, radius in enumerate(_radii(max_distance)):
        for rows, places in _near_in_band(pool, others, band, _flips(radius)):
            distances = np.bitwise_count(pool[rows][:, None] ^ others[places])  # (rows, places)
            # Where two dimensions are searched, NumPy takes longer than all the rest.
            near = np.flatnonzero(distances <= max_distance)
            if len(near):
                row, place = np.divmod(near, len(places))
                pairs.append(np.stack([rows[row], places[place]], axis=1))
    unique = np.unique(np.concatenate(pairs), axis=0)
    return unique[:, 0], unique[:, 1]


def _radii(max_distance: int) -> list[int]:
    """In how many bits of each band near hashes may differ, so that no pair is near in none (section 3.2).

    If each band differed in one more, the hashes would differ in ``max_distance + 1`` bits; -1 is a band that need not
    be looked at.
    """
    most, rest = divmod(max_distance, BANDS)
    return [most if band <= rest else most - 1 for band in range(BANDS)]


def _flips(radius: int) -> Int64Array:
    """Every number of ``BITS`` bits of which at most ``radius`` are set."""
    chosen = itertools.chain.from_iterable(itertools.combinations(range(BITS), count) for count in range(radius + 1))
    return np.array([sum(1 << bit for bit in some) for some in chosen], np.int64)


def _near_in_band(
    pool: UInt64Array, others: UInt64Array, band: int, flips: Int64Array
) -> Iterator[tuple[Int64Array, Int64Array]]:
    """Places in the pool that have one value in a band, with all places among the others whose value is near it."""
    pool_order, pool_starts = _by_value(pool, band)
    other_order, other_starts = _by_value(others, band)
    for value in np.flatnonzero(np.diff(pool_starts)) if len(flips) else []:
        near = flips ^ value
        places = other_order[_ranges(other_starts[near], other_starts[near + 1])]
        rows = pool_order[pool_starts[value] : pool_starts[value + 1]]
        step = max(1, BLOCK // max(1, len(places)))
        for start in range(0, len(rows), step) if len(places) else []:
            yield rows[start : start + step], places


def _by_value(hashes: UInt64Array, band: int) -> tuple[Int64Array, Int64Array]:
    """Places of the hashes by the value of one of their bands, and where each value's begin and the last one's end."""
    values = (hashes >> np.uint64(BITS * band)).astype(np.uint16)
    starts = np.zeros(2**BITS + 1, np.int64)
    np.cumsum(np.bincount(values, minlength=2**BITS), out=starts[1:])
    return np.argsort(values, kind="stable"), starts


def _ranges(starts: Int64Array, ends: Int64Array) -> Int64Array:
    """The whole numbers of each range, one range after the other."""
    lengths = ends - starts
    until = np.cumsum(lengths)
    offsets: Int64Array = np.repeat(starts - (until - lengths), lengths)
    return np.arange(until[-1]) + offsets
