"""The figures of a run on a held-out split."""

from typing import Any

from selftrain.evaluation import metrics
from selftrain.tables.held_out import HeldOut


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
