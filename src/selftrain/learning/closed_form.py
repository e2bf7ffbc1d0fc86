"""What algorithms without steps get and give: features of clean images in, a linear classifier out."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Pool:
    """A network's features of the round's pseudo-labeled images, and what is known of these."""

    features: NDArray[np.floating]  # (M, D)
    log_probs: NDArray[np.floating]  # (M, C)
    """The teacher's; a corrected image's are those of the person who corrected it."""
    known: NDArray[np.integer]  # (M,)
    """The class that a person gave an image, -1 elsewhere."""
    weights: NDArray[np.floating]  # (M,)
    """Each one's copies in the balanced epoch, times its weight."""
    ratio: float
    """The weight of all of them together, against all labeled images: ``train.unlabeled_ratio``."""


@dataclass(frozen=True)
class FittedTo:
    """What a classifier is fitted to. Every class has a labeled image."""

    features: NDArray[np.floating]  # (N, D)
    """The network's, of the clean labeled images."""
    labels: NDArray[np.integer]  # (N,)
    num_classes: int
    pool: Pool | None = None
    """There if the algorithm's ``views`` have unlabeled images."""


@dataclass(frozen=True)
class FittedHead:
    """A linear classifier of features: logits = features · weightᵀ + bias."""

    weight: NDArray[np.float64]  # (C, D)
    bias: NDArray[np.float64]  # (C,)
    strength: float
    """C, the inverse of the L2 penalty."""
    temperature: float | None
    """Already divided by, where the fit knows one: ``weight`` and ``bias`` are calibrated."""
    held_out_accuracy: float
    """Of the cross-validation on the labeled images, 0–1; NaN where nothing could be held out."""
