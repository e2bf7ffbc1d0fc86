"""Robustness in numbers: mean corruption error and mean flip rate, as pure functions.

Hendrycks and Dietterich, ICLR 2019, arXiv 1903.12261, Section 4.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from selftrain.evaluation.metrics import top_k_accuracy

# Top-1 errors of AlexNet on ImageNet-C at 224 pixels, averaged over the severities: the published normalisers.
ALEXNET_ERRORS = {
    "gaussian_noise": 0.886428,
    "shot_noise": 0.894468,
    "impulse_noise": 0.922640,
    "defocus_blur": 0.819880,
    "glass_blur": 0.826268,
    "motion_blur": 0.785948,
    "zoom_blur": 0.798360,
    "snow": 0.866816,
    "frost": 0.826572,
    "fog": 0.819324,
    "brightness": 0.564592,
    "contrast": 0.853204,
    "elastic_transform": 0.646056,
    "pixelate": 0.717840,
    "jpeg_compression": 0.606500,
}

# Flip probabilities of AlexNet on ImageNet-P: the paper's table of them.
ALEXNET_FLIPS = {
    "gaussian_noise": 0.2365,
    "shot_noise": 0.3006,
    "motion_blur": 0.0930,
    "zoom_blur": 0.0594,
    "snow": 0.1193,
    "brightness": 0.0489,
    "translate": 0.1101,
    "rotate": 0.1310,
    "tilt": 0.0705,
    "scale": 0.2353,
}


@dataclass(frozen=True)
class Relative:
    """Errors relative to a reference's, by corruption or perturbation, and their mean."""

    each: dict[str, float]
    """NaN where the reference makes no error."""
    mean: float
    """Over those that are defined; NaN if none is."""
    undefined: int


def relative(errors: dict[str, float], reference: dict[str, float]) -> Relative:
    """Each of a model's mean errors divided by the reference's (CE and FR), and the mean of the quotients (mCE, mFR).

    Dividing means over severities is dividing sums, as the paper has it: CE = Σ_s E_s / Σ_s E_s^reference.
    """
    each = {name: error / reference[name] if reference[name] > 0 else float("nan") for name, error in errors.items()}
    defined = [value for value in each.values() if not np.isnan(value)]
    return Relative(each, float(np.mean(defined)) if defined else float("nan"), len(each) - len(defined))


def flip_probability(predicted: NDArray[np.int32], against_first: bool) -> float:
    """How often the prediction changes along sequences (N, frames): mean over sequences of the share of changes.

    Against the frame before, or, for noise sequences, which have no order, against the first frame.
    """
    before = predicted[:, :1] if against_first else predicted[:, :-1]
    return float((predicted[:, 1:] != before).mean())


def subset_accuracy(
    log_probs: NDArray[np.floating], labels: NDArray[np.int32], classes: NDArray[np.int32], k: int
) -> float:
    """Top-k accuracy over a subset of the classes, as ImageNet-A is scored: other classes cannot be answered.

    ``log_probs`` (N, C), ``labels`` (N,) among ``classes`` (M,).
    """
    places = {int(label): place for place, label in enumerate(classes)}
    columns = np.array([places[int(label)] for label in labels])
    return top_k_accuracy(log_probs[:, classes], columns, k)
