"""What runs say of images, as probabilities."""

import numpy as np
from numpy.typing import NDArray


def opinions(log_probs: NDArray[np.float16]) -> NDArray[np.float64]:
    """Probabilities that sum to 1, (N, C); a run that says NaN of an image has no opinion of it: all alike."""
    probs = np.exp(log_probs.astype(np.float64))
    probs[~np.isfinite(probs).all(axis=1)] = 1
    normalised: NDArray[np.float64] = probs / probs.sum(axis=1, keepdims=True)
    return normalised
