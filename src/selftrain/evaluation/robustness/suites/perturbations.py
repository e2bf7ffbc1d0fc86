"""ImageNet-P's perturbation sequences (Hendrycks and Dietterich 2019, arXiv 1903.12261)."""

from collections.abc import Iterator
from functools import partial

import numpy as np
from numpy.typing import NDArray

from selftrain.evaluation.robustness.perturbations import MOST_FRAMES, PERTURBATIONS, frames
from selftrain.evaluation.robustness.testbed import Columns, Condition, Testbed, columns_of, stacked
from selftrain.images.clean_images import in_batches

SEQUENCE_BYTES = 2**26
"""Of the frames that a loader worker makes at a time."""


def conditions(testbed: Testbed) -> Iterator[Condition]:
    """A table a perturbation, with a row a frame."""
    for name in PERTURBATIONS:
        yield Condition(name, None, partial(_sequences, testbed, name))


def _sequences(testbed: Testbed, name: str) -> Columns:
    def sequence(images: NDArray[np.uint8], keys: NDArray[np.int64]) -> NDArray[np.uint8]:
        return np.stack(list(frames(images, name, keys, testbed.seed)))

    found: list[Columns] = []
    frames_of_an_image = MOST_FRAMES * 3 * testbed.size**2
    batches = in_batches(np.arange(len(testbed.test)), max(1, min(32, SEQUENCE_BYTES // frames_of_an_image)))
    for rows, shown in zip(batches, testbed.images(batches, sequence), strict=True):
        for frame, images in enumerate(shown):
            found.append(columns_of(testbed.test, rows, frame, testbed.subject.log_probs(images)))
    return stacked(iter(found))
