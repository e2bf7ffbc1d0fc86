"""As many labels as are expected to be right often enough: a cut-off a class from ``select.precision``.

How often the teacher is right at each confidence is learned from the validation images (Platt scaling, held to the
confidence itself where images are few). Of each class the lowest cut-off is taken from which on the expected share of
right labels, over the pool's own confidences, reaches the target. A class that does not reach it contributes nothing.
"""

import numpy as np
from numpy.typing import NDArray

from selftrain.calibration import fit_trust
from selftrain.params.select import SelectConfig
from selftrain.selection.cutoffs import CutoffPolicy
from selftrain.selection.sources import Source

EDGES = np.linspace(-4.0, 14.0, 361)
"""Log-odds of a confidence, the lower edges of bins; lower ones are in the first bin."""
NEVER = 2.0
"""A cut-off that no confidence reaches."""


class Precision(CutoffPolicy):
    """``low_confidence`` below the class's cut-off."""

    parameters = ("precision",)

    def __init__(self, config: SelectConfig, source: Source) -> None:
        super().__init__(config, source)
        held_out = source.validation()
        trust = fit_trust(held_out.confidences, held_out.correct)
        num_classes = held_out.log_probs.shape[1]
        images = np.zeros((num_classes, len(EDGES)))
        for part in source.parts(["label", "confidence"]):
            known = part.filter(part["confidence"].is_not_nan())
            bins = _bins(known["confidence"].to_numpy())
            np.add.at(images, (known["label"].to_numpy(), bins), 1)
        edges, middles = _confidence(EDGES), _confidence(EDGES + (EDGES[1] - EDGES[0]) / 2)
        self.cutoffs = np.full(num_classes, NEVER)
        self.found: list[dict[str, float | int | None]] = []
        for label, of_class in enumerate(images):
            expected = trust.above(middles, of_class)
            reaches = np.flatnonzero(expected >= config.precision)
            if not len(reaches):
                self.found.append({"cutoff": None, "images": 0})
                continue
            first = int(reaches[0])
            low, high = trust.interval(middles, of_class)
            self.cutoffs[label] = edges[first] if first else 0.0
            self.found.append(
                {
                    "cutoff": float(self.cutoffs[label]),
                    "images": int(of_class[first:].sum()),
                    "expected_precision": float(expected[first]),
                    "low": float(low[first]),
                    "high": float(high[first]),
                }
            )

    def summary(self, classes: list[str]) -> dict[str, object]:
        """``cutoffs`` by class, and the precision expected above with its 95% interval; null where nothing is taken."""
        return {"cutoffs": dict(zip(classes, self.found, strict=True))}


def _confidence(odds: NDArray[np.float64]) -> NDArray[np.float64]:
    """Log-odds (B,) as probabilities (B,)."""
    confidence: NDArray[np.float64] = 1 / (1 + np.exp(-odds))
    return confidence


def _bins(confidences: NDArray[np.float32]) -> NDArray[np.int64]:
    """The bin of each confidence (N,), by the same comparison that ``CutoffPolicy`` makes."""
    bins: NDArray[np.int64] = np.searchsorted(_confidence(EDGES), confidences.astype(np.float64), side="right") - 1
    return np.maximum(bins, 0)
