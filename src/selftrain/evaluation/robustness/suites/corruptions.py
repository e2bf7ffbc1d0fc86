"""ImageNet-C's corruptions at five severities (Hendrycks and Dietterich 2019, arXiv 1903.12261)."""

from collections.abc import Iterator
from functools import partial

from selftrain.evaluation.robustness.corruptions import CORRUPTIONS, SEVERITIES, corrupt
from selftrain.evaluation.robustness.images import corruption_folder
from selftrain.evaluation.robustness.testbed import Columns, Condition, Testbed, stacked


def conditions(testbed: Testbed) -> Iterator[Condition]:
    """A table a corruption, computed here or read from ``robustness.corruptions_folder``."""
    folder = testbed.config.corruptions_folder
    for name in CORRUPTIONS:
        yield Condition(
            name, folder, partial(_computed, testbed, name) if folder is None else partial(_read, testbed, name)
        )


def _computed(testbed: Testbed, name: str) -> Columns:
    return stacked(
        testbed.under(partial(corrupt, name=name, severity=severity, seed=testbed.seed), severity)
        for severity in SEVERITIES
    )


def _read(testbed: Testbed, name: str) -> Columns:
    # ImageNet-C's images are cropped already: they are shown whole.
    root = str(testbed.config.corruptions_folder)
    return stacked(
        testbed.from_folder(corruption_folder(root, name, severity), severity, 1.0, log_probs=False)
        for severity in SEVERITIES
    )
