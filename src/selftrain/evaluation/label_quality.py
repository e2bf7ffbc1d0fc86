"""How good a round's pseudo-labels are, estimated without hidden truth: from its teacher on the validation split.

How often the teacher is right at each confidence is learned from the validation images, and applied to the pool's own
confidences: a pool of harder images has lower ones, and so worse labels, than the validation images above the same
threshold. What it cannot see are images of which the teacher is sure and wrong in a way that no validation image is,
such as images of no class: there the truth is worse, and only truth or a person can tell.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from selftrain.evaluation.metrics import proportion_interval
from selftrain.evaluation.pseudo_labels import CONFIDENCE_BINS, by_threshold
from selftrain.tables.held_out import HeldOut

if TYPE_CHECKING:
    import polars as pl

ALL = None
"""Instead of a class's name: all of them. No class is named so."""
RESAMPLES = 200
FEW = 20
"""Validation images below which a share of them recommends nothing."""


def expected_precision(validation: HeldOut, counts: "pl.DataFrame", classes: list[str]) -> "pl.DataFrame":
    """What each confidence threshold would give, a class and overall.

    ``validation`` is the round's teacher on the validation split, ``counts`` is ``pseudo_labels.tally``. Images that
    stay out whatever the threshold, such as a gate's strangers, are no part of it; nor are a person's labels.

    Columns: ``class, threshold, images`` (of the pool above it), ``coverage`` (their share of those of the class),
    ``validation_images`` above it, ``precision`` with its interval ``low, high``, and ``true_precision`` of the pool's
    where truth is known. What has no images is null. A class has too few validation images to learn from; its
    precision is the share of those above the threshold that are right, with Wilson's interval.
    """
    import polars as pl

    rows = []
    counts = by_threshold(counts)
    of_class: list[tuple[str | None, NDArray[np.bool_], pl.DataFrame]]
    of_class = [(ALL, np.ones(len(validation.labels), bool), counts)]
    for label, class_name in enumerate(classes):
        of_class.append((class_name, validation.predicted == label, counts.filter(counts["label"] == label)))
    for name, predicted, pool in of_class:
        images, known, correct = (_above(pool, column) for column in ("images", "known", "correct"))
        for place in range(CONFIDENCE_BINS):
            above = predicted & (validation.confidences > np.float32(place / CONFIDENCE_BINS))
            right, seen = int((above & validation.correct).sum()), int(above.sum())
            low, high = proportion_interval(right, seen)
            rows.append(
                {
                    "class": name,
                    "threshold": place / CONFIDENCE_BINS,
                    "images": int(images[place]),
                    "coverage": images[place] / images[0] if images[0] else None,
                    "validation_images": seen,
                    "precision": right / seen if seen else None,
                    "low": low,
                    "high": high,
                    "true_precision": correct[place] / known[place] if known[place] else None,
                }
            )
    overall = like_the_pool(validation, _in_bins(counts, "images"))
    for row, precision, low, high in zip(rows[:CONFIDENCE_BINS], *overall, strict=True):
        if row["validation_images"]:
            row |= {"precision": precision, "low": low, "high": high}
    return pl.DataFrame(rows, infer_schema_length=None, schema_overrides={"true_precision": pl.Float64})


def like_the_pool(
    validation: HeldOut, images: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """The precision to expect of a pool's labels above each bin of confidence, with its 95% interval, each (bins,).

    ``images``, (bins,), is how many of the pool's lie in each bin. An isotonic regression of right on confidence over
    the validation images says how many of them are right. The interval is the bootstrap's over validation images,
    widened to that of the bare share of right ones (Wilson's), which does not vanish where all are right.
    """
    middle = (np.arange(CONFIDENCE_BINS) + 0.5) / CONFIDENCE_BINS
    total = np.maximum(np.cumsum(images[::-1])[::-1], 1)

    def estimate(sample: NDArray[np.int64]) -> NDArray[np.float64]:
        from sklearn.isotonic import IsotonicRegression

        fit = IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip")
        fit.fit(validation.confidences[sample].astype(np.float64), validation.correct[sample])
        right: NDArray[np.float64] = np.cumsum((images * fit.predict(middle))[::-1])[::-1] / total
        return right

    count = len(validation.labels)
    precision = estimate(np.arange(count))
    random = np.random.default_rng(0)
    resampled = np.array([estimate(random.integers(0, count, count)) for _ in range(RESAMPLES)])
    low, high = np.percentile(resampled, [2.5, 97.5], axis=0)
    for place in range(CONFIDENCE_BINS):
        above = validation.confidences > np.float32(place / CONFIDENCE_BINS)
        right, seen = int((above & validation.correct).sum()), int(above.sum())
        share = right / seen if seen else 0.0
        bare_low, bare_high = proportion_interval(right, seen)
        low[place] = max(0.0, min(low[place], precision[place] - (share - bare_low)))
        high[place] = min(1.0, max(high[place], precision[place] + (bare_high - share)))
    return precision, low, high


@dataclass(frozen=True)
class Recommendation:
    """The lowest threshold above which pseudo-labels are expected to be as precise as wished."""

    threshold: float
    coverage: float
    precision: float
    low: float
    high: float
    true_precision: float | None


def recommend(expected: "pl.DataFrame", target: float) -> Recommendation | None:
    """The lowest threshold from which on the expected precision over all classes stays at ``target``; None: none.

    Thresholds with fewer than ``FEW`` validation images above them are not asked: one wrong image there is no evidence.
    """
    import polars as pl

    curve = expected.filter(pl.col("class").is_null() & (pl.col("validation_images") >= FEW)).sort("threshold")
    reached = (curve["precision"] >= target).to_numpy()
    if not len(reached) or not reached[-1]:
        return None
    first = len(reached) - int(np.argmin(reached[::-1])) if not reached.all() else 0
    row = curve.row(first, named=True)
    names = ("threshold", "coverage", "precision", "low", "high", "true_precision")
    return Recommendation(**{name: row[name] for name in names})


def quality_metrics(expected: "pl.DataFrame", threshold: float, target: float) -> dict[str, Any]:
    """The round's figures: the precision expected at its own threshold, and what threshold to use instead."""
    import polars as pl

    at_threshold = (
        expected.filter(pl.col("class").is_null()).filter(pl.col("threshold") <= threshold + 1e-9).row(-1, named=True)
    )
    figures: dict[str, Any] = {
        "expected_precision": at_threshold["precision"],
        "expected_precision_low": at_threshold["low"],
        "expected_precision_high": at_threshold["high"],
    }
    advice = recommend(expected, target)
    figures["target_precision"] = target
    figures["recommended_threshold"] = advice.threshold if advice else None
    if advice:
        figures["recommended_coverage"] = advice.coverage
        figures["recommended_precision"] = advice.precision
        figures["recommended_precision_low"] = advice.low
        figures["recommended_precision_high"] = advice.high
        if advice.true_precision is not None:
            figures["recommended_precision_true"] = advice.true_precision
    return figures


def _above(counts: "pl.DataFrame", column: str) -> NDArray[np.int64]:
    """How many of a tally's images lie in each bin of confidence or above, (CONFIDENCE_BINS,)."""
    sums: NDArray[np.int64] = np.cumsum(_in_bins(counts, column)[::-1])[::-1].astype(np.int64)
    return sums


def _in_bins(counts: "pl.DataFrame", column: str) -> NDArray[np.float64]:
    """How many of a tally's images lie in each bin of confidence, (CONFIDENCE_BINS,)."""
    return np.bincount(counts["bin"], weights=counts[column], minlength=CONFIDENCE_BINS).astype(np.float64)
