"""Log-probabilities of a prediction table as probabilities."""

import numpy as np
from numpy.typing import NDArray


def probabilities(log_probs: NDArray[np.float16]) -> NDArray[np.float64]:
    """Probabilities that sum to 1, (N, C); NaN becomes the uniform distribution."""
    probs = np.exp(log_probs.astype(np.float64))
    probs[~np.isfinite(probs).all(axis=1)] = 1
    normalised: NDArray[np.float64] = probs / probs.sum(axis=1, keepdims=True)
    return normalised
