"""Which of many numbers were seen before, in 8 bytes each; a Python set takes 74."""

from bisect import bisect_left

import numpy as np
from numpy.typing import NDArray

RECENT = 2**20
"""Numbers that are a set before they become an array."""


class Seen:
    """Numbers of 64 bits that were seen."""

    def __init__(self) -> None:
        self._recent: set[int] = set()
        self._sorted: list[NDArray[np.uint64]] = []
        """Each more than the next, so that there are few and each number is moved few times."""

    def add(self, number: int) -> bool:
        """See a number; whether it was seen before."""
        if number in self._recent or any(holds(array, number) for array in self._sorted):
            return True
        self._recent.add(number)
        if len(self._recent) >= RECENT:
            array = np.fromiter(self._recent, np.uint64, len(self._recent))
            self._recent.clear()
            while self._sorted and len(self._sorted[-1]) <= len(array):
                array = np.concatenate([array, self._sorted.pop()])
            array.sort()
            self._sorted.append(array)
        return False


def holds(array: NDArray[np.uint64], number: int) -> bool:
    """Whether a sorted array has a number."""
    # For one number `bisect` takes a quarter of what `np.searchsorted` takes.
    view: memoryview[int] = array.data
    place = bisect_left(view, number)
    return place < len(view) and view[place] == number
