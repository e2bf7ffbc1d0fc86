import math

import numpy as np
import pytest

from selftrain.evaluation.robustness.measures import ALEXNET_ERRORS, flip_probability, relative, subset_accuracy


def test_mean_corruption_error_by_hand() -> None:
    own = {"fog": 0.2, "snow": 0.3, "frost": 0.1}
    found = relative(own, {"fog": 0.4, "snow": 0.2, "frost": 0.0})
    assert found.each["fog"] == pytest.approx(0.5)
    assert found.each["snow"] == pytest.approx(1.5)
    assert math.isnan(found.each["frost"])
    assert found.mean == pytest.approx(1.0)
    assert found.undefined == 1
    assert math.isnan(relative({"fog": 0.2}, {"fog": 0.0}).mean)


def test_mce_is_the_papers_ratio_of_sums_over_severities() -> None:
    rng = np.random.default_rng(0)
    own, reference = rng.random((3, 5)), rng.random((3, 5))  # (corruption, severity)
    names = "abc"
    found = relative(
        dict(zip(names, own.mean(axis=1), strict=True)), dict(zip(names, reference.mean(axis=1), strict=True))
    )
    assert found.mean == pytest.approx(np.mean([own[c].sum() / reference[c].sum() for c in range(3)]))


def test_alexnet_itself_has_an_mce_of_one() -> None:
    assert relative(ALEXNET_ERRORS, ALEXNET_ERRORS).mean == pytest.approx(1)


def test_flip_probability_by_hand() -> None:
    sequences = np.array([[1, 1, 2, 2, 1], [0, 3, 0, 3, 0]])
    assert flip_probability(sequences, against_first=False) == pytest.approx((2 / 4 + 4 / 4) / 2)
    assert flip_probability(sequences, against_first=True) == pytest.approx((2 / 4 + 2 / 4) / 2)
    assert flip_probability(np.zeros((3, 4), int), against_first=False) == 0


def test_a_subset_of_the_classes_by_hand() -> None:
    log_probs = np.log(np.array([[0.5, 0.3, 0.1, 0.1], [0.1, 0.2, 0.3, 0.4], [0.6, 0.1, 0.2, 0.1]]))
    labels, classes = np.array([1, 3, 1]), np.array([1, 3])
    # Class 0 would win twice, but cannot be answered.
    assert subset_accuracy(log_probs, labels, classes, 1) == pytest.approx(1.0)
    assert subset_accuracy(log_probs, np.array([3, 3, 3]), classes, 1) == pytest.approx(2 / 3)
    assert subset_accuracy(log_probs, np.array([3, 3, 3]), np.array([0, 1, 3]), 2) == pytest.approx(2 / 3)
    assert subset_accuracy(log_probs, labels, classes, 5) == 1.0
    assert subset_accuracy(np.full((3, 4), np.nan), labels, classes, 1) == 0.0, "what is not a number is not right"
