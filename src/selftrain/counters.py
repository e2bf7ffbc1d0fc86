"""Random numbers that are computed, not drawn: the same inputs give the same number anywhere."""

import hashlib
from enum import IntEnum, unique

import numpy as np
from numpy.typing import NDArray

UInt64Array = NDArray[np.uint64]


MASK = 2**64 - 1


@unique
class Stream(IntEnum):
    """What random numbers are for. Each draw has a stream of its own, so that none says anything of another.

    Every hash of a seed names one as its second word.
    """

    RUN = 1
    """A run's own seed, by its name."""
    LATER_PHASE = 2
    WEIGHTS = 3
    """A network before its first step."""
    MODEL_NOISE = 4
    """Dropout and stochastic depth."""
    LABELED_ORDER = 5
    UNLABELED_ORDER = 6
    LABELED_NOISE = 7
    UNLABELED_NOISE = 8
    LABELED_UNIFORM = 9
    UNLABELED_UNIFORM = 10
    """Numbers that algorithms draw labels with."""
    RESPLIT = 11
    FOLDS = 12
    """Of cross-validation on the labeled images."""
    HELD_OUT_CUT = 13
    """Which labeled images become validation and test."""
    SELECTION = 14
    """Which images of a class get an extra copy."""
    SELECTION_SHARE = 15
    NEIGHBOURS = 16
    """Which images stand for a large pool in nearest-neighbour searches."""
    TEACHER_AUGMENTATION = 17
    TEACHER_MODEL_NOISE = 18
    ROBUSTNESS_SUBSET = 19
    ROBUSTNESS_VIEWS = 20
    CORRUPTIONS = 21
    SHIFT = 22
    EXAMPLES = 23
    """Which images the report shows."""
    APP_SAMPLE = 24
    APP_POOL = 25
    APP_MAP = 26
    LAYER_FREEZING = 27
    TRUST = 28
    """Resamples of the validation images that a confidence's worth is fitted to."""
    PRECISION = 29
    """Resamples of the validation images that a selection's precision is estimated with."""


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


def word(text: str) -> int:
    """A text as a word for ``mix``."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:7], "big")


def _bits(word: int | NDArray[np.int64] | UInt64Array) -> UInt64Array:
    array = np.asarray(word)
    return array if array.dtype == np.uint64 else array.astype(np.int64).view(np.uint64)


def mixed_int(*words: int) -> int:
    """``mix`` of plain integers as a plain non-negative integer below 2**63; it is asked for each image."""
    state = 0
    for word_ in words:
        state = ((state ^ word_) + 0x9E3779B97F4A7C15) & MASK
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & MASK
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & MASK
        state ^= state >> 31
    return state >> 1
