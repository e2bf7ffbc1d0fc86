"""Seeded passes of random views over validation and test: crop and flip, and RandAugment on top."""

from collections.abc import Iterator
from functools import partial

import numpy as np

from selftrain.counters import Stream, mixed_int
from selftrain.evaluation.robustness.testbed import Columns, Condition, Testbed, columns_of, stacked
from selftrain.images.clean_images import in_batches
from selftrain.images.loading import ImageLoader
from selftrain.images.noised_images import NoisedImages
from selftrain.images.workers import in_order
from selftrain.params.noise import NoiseConfig


def conditions(testbed: Testbed) -> Iterator[Condition]:
    """A table without RandAugment and one with it."""
    config = testbed.config
    for name, operations in (("crop_and_flip", 0), ("randaugment", config.randaugment_ops)):
        noise = config.views(operations)
        yield Condition(name, (noise, config.passes), partial(_passes, testbed, noise))


def _passes(testbed: Testbed, noise: NoiseConfig) -> Columns:
    found = []
    subject = testbed.subject
    for turn in range(testbed.config.passes):
        for index in (testbed.validation, testbed.test):
            batches = in_batches(np.arange(len(index)), testbed.batch_size)
            clean = (ImageLoader(index, subject.hardware.caches), batches, subject.size, subject.crop_fraction)
            views = NoisedImages(
                *clean, noise, mixed_int(testbed.seed, Stream.ROBUSTNESS_VIEWS, turn), Stream.ROBUSTNESS_VIEWS
            )
            in_turn = in_order(views, range(len(batches)), testbed.workers(batches))
            for rows, images in zip(batches, in_turn, strict=True):
                found.append(columns_of(index, rows, turn, subject.log_probs(images)))
    return stacked(iter(found))
