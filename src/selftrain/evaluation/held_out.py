"""The figures of a run on a held-out split."""

from typing import TYPE_CHECKING, Any

from selftrain.evaluation import metrics
from selftrain.tables.held_out import HeldOut

if TYPE_CHECKING:
    import polars as pl


def precision_at_1(held_out: HeldOut, multi_labels: "pl.DataFrame") -> dict[str, Any]:
    """``test_precision_at_1``: the share of the images with labels whose likeliest class is one of theirs, and
    ``test_multi_labeled``, how many have some (Beyer et al. 2020, arXiv 2006.07159, Section 3).

    ``multi_labels``: ``key, label``, a row for each right class of an image.
    """
    import polars as pl

    predicted = pl.DataFrame({"key": held_out.keys, "predicted": held_out.predicted})
    labeled = predicted.join(multi_labels, on="key")
    right = labeled.group_by("key").agg((pl.col("predicted") == pl.col("label")).any().alias("right"))
    return {"test_precision_at_1": right["right"].mean(), "test_multi_labeled": len(right)}


def held_out_metrics(split: str, held_out: HeldOut) -> dict[str, Any]:
    """The figures of one split: accuracy with its 95% interval, top-5, loss and calibration error."""
    right, images = int(held_out.correct.sum()), len(held_out.labels)
    low, high = metrics.proportion_interval(right, images)
    diagram = metrics.reliability(held_out.confidences, held_out.correct)
    return {
        f"{split}_accuracy": right / images,
        f"{split}_accuracy_low": low,
        f"{split}_accuracy_high": high,
        f"{split}_top5": metrics.top_k_accuracy(held_out.log_probs, held_out.labels, 5),
        f"{split}_nll": metrics.negative_log_likelihood(held_out.log_probs, held_out.labels),
        f"{split}_calibration_error": diagram.expected_calibration_error,
    }
