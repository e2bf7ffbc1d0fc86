import itertools
import math

import numpy as np
import pytest
from scipy.stats import binomtest

from selftrain.evaluation import metrics


@pytest.mark.parametrize(("successes", "trials"), [(0, 10), (10, 10), (7, 20), (385, 400)])
def test_wilsons_interval(successes: int, trials: int) -> None:
    expected = binomtest(successes, trials).proportion_ci(method="wilson")
    assert metrics.proportion_interval(successes, trials) == pytest.approx((expected.low, expected.high), abs=1e-12)
    assert metrics.proportion_interval(0, 0) == (0.0, 1.0)


@pytest.mark.parametrize(("gained", "lost"), [(0, 0), (5, 0), (3, 9), (40, 41), (7, 7)])
def test_mcnemar_is_the_exact_sign_test(gained: int, lost: int) -> None:
    correct = np.array([True] * gained + [False] * lost + [True, False])
    other = np.array([False] * gained + [True] * lost + [True, False])
    expected = binomtest(gained, gained + lost).pvalue if gained + lost else 1.0
    assert metrics.mcnemar(correct, other) == (gained, lost, pytest.approx(expected))


def test_the_paired_difference_by_hand_and_by_simulation() -> None:
    correct = np.array([True] * 12 + [False] * 4 + [True] * 84)
    other = np.array([False] * 12 + [True] * 4 + [True] * 84)
    difference, low, high = metrics.paired_difference(correct, other)
    assert difference == pytest.approx(0.08)
    more, less = 13 / 102, 5 / 102
    half = 1.959964 * math.sqrt((more + less - (more - less) ** 2) / 102)
    assert (low, high) == pytest.approx((more - less - half, more - less + half), abs=1e-7)
    assert metrics.paired_difference(np.ones(1, bool), np.zeros(1, bool))[2] == 1.0, "no gain is larger"
    assert metrics.paired_difference(np.zeros(1, bool), np.ones(1, bool))[1] == -1.0
    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(2000):
        kinds = rng.choice(4, size=200, p=[0.04, 0.07, 0.8, 0.09])
        _, low, high = metrics.paired_difference((kinds == 1) | (kinds == 2), (kinds == 0) | (kinds == 2))
        hits += low <= 0.03 <= high
    assert 0.935 < hits / 2000 < 0.975, "95% intervals hold the truth 95% of the time"


def test_top_k_and_likelihood_by_hand() -> None:
    probs = np.array([[0.5, 0.3, 0.2], [0.1, 0.2, 0.7], [0.3, 0.4, 0.3]])
    labels = np.array([1, 2, 0], np.int32)
    assert metrics.top_k_accuracy(np.log(probs), labels, 1) == pytest.approx(1 / 3)
    assert metrics.top_k_accuracy(np.log(probs), labels, 2) == pytest.approx(1.0)
    assert metrics.top_k_accuracy(np.log(probs), labels, 5) == 1.0
    expected = -(math.log(0.3) + math.log(0.7) + math.log(0.3)) / 3
    assert metrics.negative_log_likelihood(np.log(probs), labels) == pytest.approx(expected)


def test_reliability_against_a_loop_over_bins() -> None:
    rng = np.random.default_rng(0)
    confidence = np.append(rng.random(500).astype(np.float32), np.float32([1.0, 0.0]))
    correct = rng.random(502) < confidence
    diagram = metrics.reliability(confidence, correct, bins=10)
    error = 0.0
    for place, (low, high) in enumerate(itertools.pairwise(np.linspace(0, 1, 11))):
        inside = (confidence.astype(float) > low) & (confidence.astype(float) <= high) | (
            (place == 0) & (confidence == 0)
        )
        assert diagram.count[place] == inside.sum()
        assert diagram.accuracy[place] == pytest.approx(correct[inside].mean())
        assert diagram.confidence[place] == pytest.approx(confidence[inside].mean(), rel=1e-6)
        error += inside.mean() * abs(correct[inside].mean() - confidence[inside].mean())
    assert diagram.expected_calibration_error == pytest.approx(error, rel=1e-6)


def test_a_sure_and_always_wrong_model_is_off_by_one() -> None:
    diagram = metrics.reliability(np.ones(9, np.float32), np.zeros(9, bool))
    assert diagram.expected_calibration_error == 1.0
    assert np.isnan(diagram.accuracy[0])


def test_confusion_and_recall() -> None:
    matrix = metrics.confusion_matrix(np.array([0, 0, 1, 3], np.int32), np.array([0, 2, 1, 0], np.int32), 4)
    assert matrix.tolist() == [[1, 0, 1, 0], [0, 1, 0, 0], [0, 0, 0, 0], [1, 0, 0, 0]]
    recall = metrics.per_class_accuracy(matrix)
    assert recall[[0, 1, 3]].tolist() == [0.5, 1.0, 0.0]
    assert np.isnan(recall[2])


def test_nan_is_never_right() -> None:
    assert metrics.top_k_accuracy(np.full((3, 4), np.nan), np.array([0, 1, 2], np.int32), 1) == 0.0
    assert metrics.top_k_accuracy(np.full((3, 4), np.nan), np.array([0, 1, 2], np.int32), 5) == 0.0


def test_a_share_lies_in_its_interval() -> None:
    for trials in range(1, 80):
        for successes in range(trials + 1):
            low, high = metrics.proportion_interval(successes, trials)
            assert 0 <= low <= successes / trials <= high <= 1
