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

from selftrain.counters import Stream, mixed_int
from selftrain.evaluation.metrics import proportion_interval
from selftrain.evaluation.pseudo_labels import CONFIDENCE_BINS, by_threshold
from selftrain.tables.held_out import HeldOut
from selftrain.tables.selection import KEPT

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
    stay out whatever the threshold, such as a gate's strangers, count in the pool alone; so do a person's labels.

    Columns: ``class, threshold, images`` (of the pool above it), ``coverage`` (their share of the pool's images of the
    class), ``validation_images`` above it, ``precision`` with its interval ``low, high``, and ``true_precision`` of the
    pool's where truth is known. What has no images is null. A class has too few validation images to learn from; its
    precision is the share of those above the threshold that are right, with Wilson's interval.
    """
    rows = []
    asked = by_threshold(counts)
    for name, of_class in _with_all(classes):
        pool, predicted = _of_class(asked, of_class), _predicted(validation, of_class)
        images, known, correct = (_above(pool, column) for column in ("images", "known", "correct"))
        whole = int(_of_class(counts, of_class)["images"].sum())
        for place in range(CONFIDENCE_BINS):
            rows.append(
                {
                    "class": name,
                    "threshold": place / CONFIDENCE_BINS,
                    "images": int(images[place]),
                    "coverage": images[place] / whole if whole else None,
                    **_share_of_right(validation, predicted & _is_above(validation, place)),
                    "true_precision": correct[place] / known[place] if known[place] else None,
                }
            )
    overall = like_the_pool(validation, _in_bins(asked, "images"), _mean_confidences(asked))
    for row, precision, low, high in zip(rows[:CONFIDENCE_BINS], *overall, strict=True):
        if row["validation_images"]:
            row |= {"precision": precision, "low": low, "high": high} if row["images"] else _NOTHING
    return _as_frame(rows)


def kept_precision(validation: HeldOut, counts: "pl.DataFrame", classes: list[str]) -> "pl.DataFrame":
    """What to expect of the teacher's labels that are trained on, whatever rule chose them, a class and overall.

    Parameters and columns as for ``expected_precision``, without threshold and coverage. ``validation_images`` are
    those of which the teacher is at least as sure as of the kept image that it is least sure of.
    """
    rows = []
    kept = counts.filter(counts["decision"] == KEPT)
    for name, of_class in _with_all(classes):
        pool, predicted = _of_class(kept, of_class), _predicted(validation, of_class)
        least = pool["lowest"].to_numpy().min(initial=np.inf)
        known = int(pool["known"].sum())
        rows.append(
            {
                "class": name,
                "images": int(pool["images"].sum()),
                **_share_of_right(validation, predicted & (validation.confidences >= np.float32(least))),
                "true_precision": int(pool["correct"].sum()) / known if known else None,
            }
        )
    if rows[0]["validation_images"]:
        estimates = like_the_pool(validation, _in_bins(kept, "images"), _mean_confidences(kept))
        lowest_bin = int(kept["bin"].to_numpy().min())
        rows[0] |= dict(zip(("precision", "low", "high"), (float(each[lowest_bin]) for each in estimates), strict=True))
    return _as_frame(rows)


def _as_frame(rows: list[dict[str, Any]]) -> "pl.DataFrame":
    import polars as pl

    floats = dict.fromkeys(("precision", "low", "high", "true_precision"), pl.Float64)
    return pl.DataFrame(rows, infer_schema_length=None, schema_overrides=floats)


_NOTHING = dict.fromkeys(("precision", "low", "high"))


def _with_all(classes: list[str]) -> list[tuple[str | None, int | None]]:
    """(name, index) of all classes together, and of each."""
    return [(ALL, None), *((name, label) for label, name in enumerate(classes))]


def _of_class(counts: "pl.DataFrame", label: int | None) -> "pl.DataFrame":
    return counts if label is None else counts.filter(counts["label"] == label)


def _predicted(validation: HeldOut, label: int | None) -> NDArray[np.bool_]:
    """Which validation images the teacher gives a class, (N,); None: any."""
    return np.ones(len(validation.labels), bool) if label is None else validation.predicted == label


def _is_above(validation: HeldOut, place: int) -> NDArray[np.bool_]:
    return validation.confidences > np.float32(place / CONFIDENCE_BINS)


def _share_of_right(validation: HeldOut, asked: NDArray[np.bool_]) -> dict[str, Any]:
    """How many validation images are asked, (N,), and the share of them that is right, with Wilson's interval."""
    right, seen = int((asked & validation.correct).sum()), int(asked.sum())
    low, high = proportion_interval(right, seen)
    return {"validation_images": seen, "precision": right / seen if seen else None, "low": low, "high": high}


def like_the_pool(
    validation: HeldOut, images: NDArray[np.float64], confidences: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """The precision to expect of a pool's labels above each bin of confidence, with its 95% interval, each (bins,).

    ``images``, (bins,), is how many of the pool's lie in each bin, ``confidences`` their mean there. An isotonic
    regression of right on confidence over the validation images says how many of them are right. The interval is the
    bootstrap's over validation images, widened to that of the bare share of right ones (Wilson's), which does not
    vanish where all are right. Where no image is above, it says nothing.
    """
    total = np.maximum(np.cumsum(images[::-1])[::-1], 1)
    sure = np.nan_to_num(validation.confidences, nan=0.0).astype(np.float64)

    def estimate(sample: NDArray[np.int64]) -> NDArray[np.float64]:
        from sklearn.isotonic import IsotonicRegression

        fit = IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip")
        fit.fit(sure[sample], validation.correct[sample])
        right: NDArray[np.float64] = np.cumsum((images * fit.predict(confidences))[::-1])[::-1] / total
        return right

    count = len(validation.labels)
    precision = estimate(np.arange(count))
    random = np.random.default_rng(mixed_int(0, Stream.PRECISION))
    resampled = np.array([estimate(random.integers(0, count, count)) for _ in range(RESAMPLES)])
    low, high = np.percentile(resampled, [2.5, 97.5], axis=0)
    for place in range(CONFIDENCE_BINS):
        bare = _share_of_right(validation, _is_above(validation, place))
        share = bare["precision"] or 0.0
        low[place] = max(0.0, min(low[place], precision[place] - (share - bare["low"])))
        high[place] = min(1.0, max(high[place], precision[place] + (bare["high"] - share)))
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
    Nor are those that no image of the pool is above.
    """
    import polars as pl

    told = pl.col("class").is_null() & (pl.col("validation_images") >= FEW) & pl.col("precision").is_not_null()
    curve = expected.filter(told).sort("threshold")
    reached = (curve["precision"] >= target).to_numpy()
    if not len(reached) or not reached[-1]:
        return None
    first = len(reached) - int(np.argmin(reached[::-1])) if not reached.all() else 0
    row = curve.row(first, named=True)
    names = ("threshold", "coverage", "precision", "low", "high", "true_precision")
    return Recommendation(**{name: row[name] for name in names})


def quality_metrics(kept: "pl.DataFrame", expected: "pl.DataFrame", target: float) -> dict[str, Any]:
    """The round's figures: the precision expected of its labels (``kept_precision``), and what threshold to use."""
    ours = kept.row(0, named=True)
    told = ours["precision"] is not None
    figures: dict[str, Any] = {
        "expected_precision": ours["precision"],
        "expected_precision_low": ours["low"] if told else None,
        "expected_precision_high": ours["high"] if told else None,
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


def _mean_confidences(counts: "pl.DataFrame") -> NDArray[np.float64]:
    """The mean confidence of a tally's images in each bin, (CONFIDENCE_BINS,); its middle where there are none."""
    images = _in_bins(counts, "images")
    sums = np.bincount(counts["bin"], weights=counts["images"] * counts["confidence"], minlength=CONFIDENCE_BINS)
    middle = (np.arange(CONFIDENCE_BINS) + 0.5) / CONFIDENCE_BINS
    return np.where(images > 0, sums / np.maximum(images, 1), middle)
