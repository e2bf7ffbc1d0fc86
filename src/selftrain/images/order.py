"""Sample order as a function of (seed, epoch, position): nothing is drawn, nothing is stored."""

import numpy as np
from numpy.typing import NDArray

from selftrain.counters import mix

ROUNDS = 6

Int64Array = NDArray[np.int64]


def shuffled(positions: Int64Array, size: int, seed: int, epoch: int) -> Int64Array:
    """Where a shuffle of ``range(size)`` sends each position; every (seed, epoch) is another shuffle.

    A keyed Feistel network on the smallest even number of bits that holds ``size``, walked along its
    cycles until the value is below ``size`` (Black and Rogaway, "Ciphers with arbitrary finite domains",
    CT-RSA 2002). Any position costs the same and no memory: 300 million images need no permutation array.
    """
    assert size > 0
    half = max(1, ((size - 1).bit_length() + 1) // 2)
    mask = np.uint64((1 << half) - 1)
    values = np.asarray(positions).astype(np.uint64)  # (N,)
    outside = np.ones(values.shape, dtype=bool)
    while outside.any():
        left, right = values[outside] >> np.uint64(half), values[outside] & mask
        for round_ in range(ROUNDS):
            left, right = right, left ^ (mix(seed, epoch, round_, right) & mask)
        values[outside] = (left << np.uint64(half)) | right
        outside = values >= size
    return values.astype(np.int64)


def stream(start: int, count: int, size: int, seed: int) -> tuple[Int64Array, Int64Array]:
    """Items at places ``start … start + count`` of the endless stream of shuffled epochs.

    Returns (epochs, items), each (count,). Batches may cross from one epoch into the next.
    """
    places = np.arange(start, start + count, dtype=np.int64)
    epochs, positions = np.divmod(places, size)
    items = np.empty(count, dtype=np.int64)
    for epoch in np.unique(epochs):
        here = epochs == epoch
        items[here] = shuffled(positions[here], size, seed, int(epoch))
    return epochs, items
