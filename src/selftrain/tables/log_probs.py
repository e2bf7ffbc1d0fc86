"""Log-probabilities of many classes: all of them, or of each image's likeliest K and the mean of the others.

In float16, and compressed, 1,000 classes take 1,600 bytes an image, their likeliest 20 take 70.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class LogProbs:
    """Log-probabilities of N images over ``num_classes`` classes."""

    values: NDArray[np.float16]
    """(N, C); with ``classes`` (N, K + 1), the likeliest first, and last what each of the other classes has."""
    classes: NDArray[np.unsignedinteger] | None  # (N, K)
    """Which classes are kept; None: all, in their order."""
    num_classes: int

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, rows: NDArray[np.int64] | NDArray[np.bool_] | slice) -> "LogProbs":
        """Some of the images."""
        return LogProbs(self.values[rows], None if self.classes is None else self.classes[rows], self.num_classes)

    def of_all_classes(self) -> NDArray[np.float16]:
        """(N, C); classes that were not kept have the mean of their probabilities."""
        if self.classes is None:
            return self.values
        every = np.repeat(self.values[:, -1:], self.num_classes, axis=1)
        np.put_along_axis(every, self.classes.astype(np.int64), self.values[:, :-1], axis=1)
        return every


def likeliest(log_probs: NDArray[np.float16], top_k: int | None) -> LogProbs:
    """Keep the ``top_k`` likeliest classes of each row of (N, C), of equals those that come first; None keeps all."""
    num_classes = log_probs.shape[1]
    if top_k is None or top_k >= num_classes:
        return LogProbs(log_probs, None, num_classes)
    # Bits of numbers that are not positive rise as the numbers fall, so whole numbers sort as pairs (likelier, class).
    bits = np.ascontiguousarray(log_probs).view(np.uint16).astype(np.uint64)  # (N, C)
    pairs = np.partition(bits << np.uint64(32) | np.arange(num_classes, dtype=np.uint64), top_k, axis=1)[:, : top_k + 1]
    pairs.sort(axis=1)
    best = (pairs & np.uint64(2**32 - 1)).astype(np.int64)  # (N, K + 1)
    kept, next_best = best[:, :-1], best[:, -1:]
    others = log_probs.astype(np.float32)
    highest = np.take_along_axis(others, next_best, axis=1)  # (N, 1)
    np.put_along_axis(others, kept, -np.inf, axis=1)
    rest = highest + np.log(np.exp(others - highest).sum(axis=1, keepdims=True) / (num_classes - top_k))
    values = np.concatenate([np.take_along_axis(log_probs, kept, axis=1), rest.astype(np.float16)], axis=1)
    return LogProbs(values, kept.astype(class_dtype(num_classes)), num_classes)


def class_dtype(num_classes: int) -> np.dtype[np.unsignedinteger]:
    """The smallest that holds each class' index."""
    return np.min_scalar_type(num_classes - 1)
