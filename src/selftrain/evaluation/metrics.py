"""Metrics as pure functions of labels and log-probabilities."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Labels = NDArray[np.int32]
LogProbs = NDArray[np.floating]

CALIBRATION_BINS = 15


def proportion_interval(successes: int, trials: int) -> tuple[float, float]:
    """Wilson's score interval of a proportion (Wilson 1927); (0, 1) if there were no trials."""
    from scipy.special import ndtri

    if trials == 0:
        return 0.0, 1.0
    z = float(ndtri(0.975))
    share = successes / trials
    centre = (share + z**2 / (2 * trials)) / (1 + z**2 / trials)
    half = z / (1 + z**2 / trials) * (share * (1 - share) / trials + z**2 / (4 * trials**2)) ** 0.5
    # Rounding must not leave the share itself outside, as it would at 0 and 1.
    return max(0.0, min(share, centre - half)), min(1.0, max(share, centre + half))


def mcnemar(correct: NDArray[np.bool_], other_correct: NDArray[np.bool_]) -> tuple[int, int, float]:
    """McNemar's exact test of two models on the same images, each (N,).

    Returns (images only the first has right, images only the second has right, two-sided p).
    """
    from scipy.special import bdtr

    gained = int((correct & ~other_correct).sum())
    lost = int((~correct & other_correct).sum())
    if gained + lost == 0:
        return 0, 0, 1.0
    return gained, lost, min(1.0, 2 * float(bdtr(min(gained, lost), gained + lost, 0.5)))


def paired_difference(correct: NDArray[np.bool_], other_correct: NDArray[np.bool_]) -> tuple[float, float, float]:
    """Accuracy of one model less another's on the same images, each (N,), and its interval: (difference, low, high).

    The interval is Wald's with one image added to each kind of disagreement (Bonett and Price 2012,
    "Adjusted Wald confidence interval for a difference of binomial proportions based on paired data", Equation 3).
    """
    from scipy.special import ndtri

    images = len(correct)
    gained, lost = int((correct & ~other_correct).sum()), int((~correct & other_correct).sum())
    more, less = (gained + 1) / (images + 2), (lost + 1) / (images + 2)
    half = float(ndtri(0.975)) * ((more + less - (more - less) ** 2) / (images + 2)) ** 0.5
    return (gained - lost) / images, max(-1.0, more - less - half), min(1.0, more - less + half)


def top_k_accuracy(log_probs: LogProbs, labels: Labels, k: int) -> float:
    """Share of images whose label is among the k likeliest; (N, C) and (N,), k capped at C."""
    of_label = log_probs[np.arange(len(labels)), labels]
    # If the label's number is NaN, all classes count as better, so that the image is wrong.
    better = (~(log_probs <= of_label[:, None])).sum(axis=1)
    return float((better < min(k, log_probs.shape[1])).mean())


def negative_log_likelihood(log_probs: LogProbs, labels: Labels) -> float:
    """Mean −log p(label), in nats; (N, C) and (N,)."""
    return float(-log_probs[np.arange(len(labels)), labels].astype(np.float64).mean())


@dataclass(frozen=True)
class Reliability:
    """A reliability diagram: per confidence bin, all arrays (bins,)."""

    count: NDArray[np.int64]
    confidence: NDArray[np.float64]
    """Mean in the bin; NaN in empty ones."""
    accuracy: NDArray[np.float64]

    @property
    def expected_calibration_error(self) -> float:
        """Σ share of the bin · |accuracy − confidence| (Guo et al. 2017, arXiv 1706.04599, Equation 3)."""
        filled = self.count > 0
        gaps = np.abs(self.accuracy[filled] - self.confidence[filled])
        return float((gaps * self.count[filled]).sum() / self.count.sum())


def reliability(
    confidence: NDArray[np.float32], correct: NDArray[np.bool_], bins: int = CALIBRATION_BINS
) -> Reliability:
    """Equal-width bins over (0, 1]; (N,) confidences and (N,) whether each was right."""
    place = np.clip(np.ceil(confidence.astype(np.float64) * bins).astype(np.int64) - 1, 0, bins - 1)
    count = np.bincount(place, minlength=bins)
    with np.errstate(invalid="ignore"):
        return Reliability(
            count,
            np.bincount(place, weights=confidence, minlength=bins) / count,
            np.bincount(place, weights=correct, minlength=bins) / count,
        )


def confusion_matrix(labels: Labels, predicted: Labels, num_classes: int) -> NDArray[np.int64]:
    """(C, C) counts, rows the true class."""
    flat = np.bincount(labels.astype(np.int64) * num_classes + predicted, minlength=num_classes**2)
    return flat.reshape(num_classes, num_classes)


def per_class_accuracy(matrix: NDArray[np.int64]) -> NDArray[np.float64]:
    """Recall of each class from a confusion matrix; NaN for classes without images."""
    with np.errstate(invalid="ignore"):
        shares: NDArray[np.float64] = np.diag(matrix) / matrix.sum(axis=1)
    return shares
