"""What the images of a pool are said to be: each one's log-probabilities, kept as their table keeps them."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from selftrain.calibration import shift_log_probs
from selftrain.plumbing.columns import Column
from selftrain.tables.log_probs import LogProbs

IMPOSSIBLE = np.float16(-30000)
"""A log-probability that is zero as a probability at any temperature in use, and can be multiplied by zero."""


@dataclass(frozen=True)
class SoftLabels:
    """The teacher's predictions of N images, aligned to a prior; of images whose class is certain, that class."""

    of_teacher: LogProbs
    certain: NDArray[np.int32]
    """(N,) The class, -1 where the teacher is asked."""
    shift: NDArray[np.float64] | None = None
    """(C,) What aligns the teacher's predictions."""

    def __getitem__(self, rows: NDArray[np.int64] | slice) -> NDArray[np.float16]:
        """The log-probabilities of some images, (B, C)."""
        log_probs = self.of_teacher[rows].of_all_classes().copy()
        if self.shift is not None:
            log_probs = shift_log_probs(log_probs, self.shift).astype(np.float16)
        classes = self.certain[rows]
        found = classes >= 0
        log_probs[found] = IMPOSSIBLE
        log_probs[found, classes[found]] = 0
        return log_probs


def of_labels(labels: NDArray[np.int32], num_classes: int) -> SoftLabels:
    """Of images whose labels, (N,), are certain."""
    nothing = np.full((len(labels), 1), IMPOSSIBLE)
    return SoftLabels(LogProbs(nothing, np.empty((len(labels), 0), np.uint8), num_classes), labels)


class LogProbsColumn:
    """Log-probabilities that grow at their end and may be longer than memory. ``like`` has their shape."""

    def __init__(self, like: LogProbs) -> None:
        self._num_classes = like.num_classes
        self._values = Column(np.float16, like.values.shape[1])
        self._classes = None if like.classes is None else Column(like.classes.dtype.type, like.classes.shape[1])

    def append(self, rows: LogProbs) -> None:
        """Add images. Raises UserError if the disk is full."""
        self._values.append(rows.values)
        if self._classes is not None:
            assert rows.classes is not None
            self._classes.append(rows.classes)

    def log_probs(self) -> LogProbs:
        """All of them. Nothing can be added after it."""
        classes = None if self._classes is None else self._classes.array()
        return LogProbs(self._values.array(), classes, self._num_classes)
