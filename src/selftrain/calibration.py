"""What a confidence is worth, learned from images that the model was not trained on."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from selftrain.counters import Stream, mixed_int

RANGE = (0.05, 20.0)
LEAST, MOST = 1e-6, 1 - 1e-6
"""Confidences beyond them are as if they were these."""
RESAMPLES = 200
FIRMNESS = 4.0
"""Of the prior on a temperature that is applied: its logarithm is 0 ± 0.5 before an image is seen."""
PRIOR = 1.0
"""How firmly ``fit_trust`` believes a confidence before it has seen an image; a few images outweigh it."""


def fit_temperature(log_probs: NDArray[np.floating], labels: NDArray[np.integer], firmness: float = 0.0) -> float:
    """The temperature at which log-probabilities (N, C) give labels (N,) the highest likelihood, from 0.05 to 20.

    Above 1 the model is too sure of itself, below 1 too modest. Guo et al. 2017, arXiv 1706.04599, Section 4.2.
    ``firmness`` is the precision of a normal prior on its logarithm: where all of a few images are right, the
    likelihood alone would make a model certain of everything.
    """
    from scipy.optimize import minimize_scalar

    def loss(log_temperature: float) -> float:
        scaled = at_temperature(log_probs, float(np.exp(log_temperature)))
        prior = firmness / 2 * log_temperature**2
        return (prior - float(scaled[np.arange(len(labels)), labels].sum())) / max(len(labels), 1)

    return float(np.exp(minimize_scalar(loss, bounds=np.log(RANGE), method="bounded").x))


def shift_log_probs(log_probs: NDArray[np.floating], shift: NDArray[np.float64]) -> NDArray[np.float64]:
    """Log-probabilities (N, C), shifted by (C,) and normalised."""
    from scipy.special import log_softmax

    shifted: NDArray[np.float64] = log_softmax(log_probs.astype(np.float64) + shift, axis=1)
    return shifted


def at_temperature(log_probs: NDArray[np.floating], temperature: float) -> NDArray[np.float64]:
    """Log-probabilities (N, C) at another temperature, (N, C)."""
    from scipy.special import log_softmax

    scaled: NDArray[np.float64] = log_softmax(log_probs.astype(np.float64) / temperature, axis=1)
    return scaled


@dataclass(frozen=True)
class Trust:
    """How often a model is right at each confidence: sigmoid(offset + slope · log-odds of the confidence).

    Platt 1999, "Probabilistic outputs for support vector machines"; offset 0 and slope 1 take confidences as they are.
    """

    offset: float
    slope: float
    resampled: NDArray[np.float64]  # (RESAMPLES, 2)
    """(offset, slope) of resamples of the held-out images, for intervals."""

    def right(self, confidences: NDArray[np.floating]) -> NDArray[np.float64]:
        """The share that is right at each confidence, (N,), 0–1."""
        return _right(log_odds(confidences), self.offset, self.slope)

    def interval(
        self, confidences: NDArray[np.float64], images: NDArray[np.floating]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """(2.5%, 97.5%) of the share that is right among the images at a confidence (B,) or above, each (B,).

        ``images`` (B,) lie at each confidence; confidences ascend.
        """
        found = np.array([self._above(confidences, images, *each) for each in self.resampled])  # (RESAMPLES, B)
        low, high = np.percentile(found, [2.5, 97.5], axis=0)
        return low, high

    def above(self, confidences: NDArray[np.float64], images: NDArray[np.floating]) -> NDArray[np.float64]:
        """The share that is right among the images at a confidence (B,) or above, (B,)."""
        return self._above(confidences, images, self.offset, self.slope)

    @staticmethod
    def _above(
        confidences: NDArray[np.float64], images: NDArray[np.floating], offset: float, slope: float
    ) -> NDArray[np.float64]:
        right = images * _right(log_odds(confidences), offset, slope)
        shares: NDArray[np.float64] = right[::-1].cumsum()[::-1] / np.maximum(images[::-1].cumsum()[::-1], 1)
        return shares


def fit_trust(confidences: NDArray[np.floating], correct: NDArray[np.bool_]) -> Trust:
    """Learn from held-out images (N,) and whether the model is right on each, (N,).

    Without images, confidences are believed as they are. The resamples are the same for every seed of a project.
    """
    odds = log_odds(confidences)
    offset, slope = _fitted(odds, correct)
    random = np.random.default_rng(mixed_int(0, Stream.TRUST))
    samples = [random.integers(0, len(odds), len(odds)) for _ in range(RESAMPLES)] if len(odds) else []
    resampled = [_fitted(odds[sample], correct[sample]) for sample in samples] or [(offset, slope)]
    return Trust(offset, slope, np.array(resampled))


def log_odds(confidences: NDArray[np.floating]) -> NDArray[np.float64]:
    """log(p / (1 − p)), finite."""
    clipped = np.clip(confidences.astype(np.float64), LEAST, MOST)
    odds: NDArray[np.float64] = np.log(clipped) - np.log1p(-clipped)
    return odds


def _right(odds: NDArray[np.float64], offset: float, slope: float) -> NDArray[np.float64]:
    from scipy.special import expit

    shares: NDArray[np.float64] = expit(offset + slope * odds)
    return shares


def _fitted(odds: NDArray[np.float64], correct: NDArray[np.bool_]) -> tuple[float, float]:
    """(offset, slope) of the highest likelihood, held to (0, 1) by the prior; Newton's method, the loss is convex."""
    design = np.stack([np.ones_like(odds), odds], axis=1)  # (N, 2)
    start = np.array([0.0, 1.0])
    found = start.copy()
    for _ in range(50):
        right = _right(odds, *found)
        slope = design.T @ (right - correct) + PRIOR * (found - start)
        curvature = design.T @ (design * (right * (1 - right))[:, None]) + PRIOR * np.eye(2)
        step = np.linalg.solve(curvature, slope)
        found -= step / max(1.0, float(np.abs(step).max()))
        if np.abs(step).max() < 1e-9:
            break
    # A model that is righter where it is less sure has no cut-off; its confidence says nothing.
    return float(found[0]), float(max(found[1], 0.0))
