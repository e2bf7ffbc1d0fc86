"""Multinomial logistic regression on a network's features: a teacher in seconds, where labels are few.

The network stays as it is. Its features of the clean labeled images are centred and scaled by one number, which folds
into the classifier, and L2-regularised logistic regression is fitted to them. The strength of the regularisation is
chosen by cross-validation on the labeled images: the one with the highest likelihood of images that were not fitted.

The same held-out log-probabilities give a temperature (Guo et al. 2017, arXiv 1706.04599, Section 4.2). It is folded
into the classifier too, so that the confidences are those of images that the classifier has not seen.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from selftrain.calibration import FIRMNESS, fit_temperature
from selftrain.counters import Stream, mix
from selftrain.learning.algorithm import Algorithm
from selftrain.learning.closed_form import FittedHead, FittedTo
from selftrain.plumbing.sections import Section

STRENGTHS = tuple(10.0 ** (exponent / 2) for exponent in range(-2, 9))
"""Of C, the inverse of the L2 penalty, to choose from."""
WITHOUT_CHOICE = 100.0
"""C where no class has two images, so that nothing can be held out."""
MOST_ITERATIONS = 1000


class LinearProbeConfig(Section):
    """``train.algorithm`` of a linear probe."""

    folds: int = Field(default=5, ge=2)
    """Of the cross-validation; at most as many as a class has images."""


class LinearProbe(Algorithm):
    """A fitted classifier on a network that is not trained. It takes no steps."""

    Config = LinearProbeConfig
    views = {}
    closed_form = True

    @classmethod
    def fit(cls, config: Any, given: FittedTo, seed: int) -> FittedHead:
        """See ``Algorithm``."""
        return fit_head(given.features, given.labels, given.num_classes, config.folds, seed)


def fit_head(
    features: NDArray[np.floating], labels: NDArray[np.integer], num_classes: int, folds: int, seed: int
) -> FittedHead:
    """Fit a calibrated classifier to features (N, D) and labels (N,), of which every class has at least one.

    A class with one image is in every fit and never held out.
    """
    inputs, offset, scale = standardised(features)
    fold_of = _folds(labels, folds, seed)
    held_out = fold_of >= 0
    strength, temperature, accuracy = WITHOUT_CHOICE, 1.0, float("nan")
    if held_out.any():
        found = {c: _cross_fitted(inputs, labels, fold_of, num_classes, c) for c in STRENGTHS}  # (N', C)
        true = labels[held_out]
        strength = max(found, key=lambda c: float(found[c][np.arange(len(true)), true].mean()))
        temperature = fit_temperature(found[strength], true, FIRMNESS)
        accuracy = float((found[strength].argmax(axis=1) == true).mean())
    weight, bias = of_features(*logistic_regression(inputs, labels, num_classes, strength), offset, scale)
    return FittedHead(weight / temperature, bias / temperature, strength, temperature, accuracy)


def standardised(features: NDArray[np.floating]) -> tuple[NDArray[np.float64], NDArray[np.float64], float]:
    """(features less their mean (D,), divided by their mean distance from it; that mean; that distance)."""
    offset = features.mean(axis=0, dtype=np.float64)
    centred = features - offset
    scale = float(np.linalg.norm(centred, axis=1).mean()) or 1.0
    return centred / scale, offset, scale


def of_features(
    weight: NDArray[np.float64], bias: NDArray[np.float64], offset: NDArray[np.float64], scale: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """A classifier of standardised features as one of the features themselves."""
    weight = weight / scale
    return weight, bias - weight @ offset


def _folds(labels: NDArray[np.integer], folds: int, seed: int) -> NDArray[np.int64]:
    """Each image's fold (N,), class by class in an order drawn by the seed; -1 for a class with one image."""
    counts = np.bincount(labels)
    several = counts[counts > 1]
    found = np.full(len(labels), -1, np.int64)
    if not len(several):
        return found
    count = min(folds, int(several.min()))
    uniforms = mix(seed, Stream.FOLDS, np.arange(len(labels), dtype=np.int64))
    for label in np.flatnonzero(counts > 1):
        members = np.flatnonzero(labels == label)
        found[members[np.argsort(uniforms[members], kind="stable")]] = np.arange(len(members)) % count
    return found


def _cross_fitted(
    inputs: NDArray[np.float64], labels: NDArray[np.integer], fold_of: NDArray[np.int64], num_classes: int, c: float
) -> NDArray[np.float64]:
    """Log-probabilities of every image that is held out once, by a fit without its fold; in the images' order."""
    from scipy.special import log_softmax

    log_probs = np.empty((len(labels), num_classes))
    for fold in range(fold_of.max() + 1):
        out = fold_of == fold
        weight, bias = logistic_regression(inputs[~out], labels[~out], num_classes, c)
        log_probs[out] = log_softmax(inputs[out] @ weight.T + bias, axis=1)
    return log_probs[fold_of >= 0]


def logistic_regression(
    inputs: NDArray[np.float64],
    labels: NDArray[np.integer],
    num_classes: int,
    c: float,
    weights: NDArray[np.float64] | None = None,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Weight (C, D) and bias (C,) of scikit-learn's multinomial logistic regression; ``weights`` (N,) of the rows."""
    from sklearn.linear_model import LogisticRegression
    from threadpoolctl import threadpool_limits

    # With more threads sums are added up in another order, and threads that wait for one another are slow.
    with threadpool_limits(1, "blas"):
        fitted = LogisticRegression(C=c, max_iter=MOST_ITERATIONS).fit(inputs, labels, sample_weight=weights)
    weight, bias = fitted.coef_, fitted.intercept_
    if num_classes == 2:
        # One row of log-odds becomes two logits with the same softmax.
        weight, bias = np.concatenate([-weight / 2, weight / 2]), np.concatenate([-bias / 2, bias / 2])
    assert weight.shape[0] == num_classes
    return weight, bias
