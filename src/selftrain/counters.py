"""Random numbers that are computed, not drawn: the same inputs give the same number anywhere."""

import numpy as np
from numpy.typing import NDArray

UInt64Array = NDArray[np.uint64]


def mix(*words: int | NDArray[np.int64] | UInt64Array) -> UInt64Array:
    """Hash integers into 64 well-mixed bits.

    Arrays are hashed element by element and broadcast against each other. The finalizer is
    splitmix64's (Steele, Lea and Flood, "Fast splittable pseudorandom number generators",
    OOPSLA 2014), applied once a word.
    """
    state: UInt64Array = np.zeros((), dtype=np.uint64)
    with np.errstate(over="ignore"):
        for word in words:
            state = state ^ _bits(word)
            state = state + np.uint64(0x9E3779B97F4A7C15)
            state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
            state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
            state = state ^ (state >> np.uint64(31))
    return state


def _bits(word: int | NDArray[np.int64] | UInt64Array) -> UInt64Array:
    array = np.asarray(word)
    return array if array.dtype == np.uint64 else array.astype(np.int64).view(np.uint64)


def mixed_int(*words: int) -> int:
    """``mix`` of plain integers as a plain non-negative integer below 2**63."""
    return int(mix(*words)) >> 1
