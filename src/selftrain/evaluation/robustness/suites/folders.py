"""Labeled folders from elsewhere, such as ImageNet-A: every run that names ``robustness.folders`` is shown them."""

from collections.abc import Iterator
from functools import partial

from selftrain.evaluation.robustness.testbed import Condition, Testbed


def conditions(testbed: Testbed) -> Iterator[Condition]:
    """A table a folder, with log-probabilities: its classes may be some of the model's."""
    for name, folder in testbed.config.folders.items():
        crop_fraction = testbed.subject.crop_fraction
        yield Condition(name, folder, partial(testbed.from_folder, folder, 0, crop_fraction, log_probs=True))
