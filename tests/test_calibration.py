"""What a confidence is worth: against scipy's optimum, and on images whose chances are known."""

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import expit, logit

from selftrain.calibration import FIRMNESS, PRIOR, fit_temperature, fit_trust, log_odds


def drawn(count: int, offset: float = 0.0, slope: float = 1.0, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Confidences, and whether each is right with the chance sigmoid(offset + slope · log-odds)."""
    rng = np.random.default_rng(seed)
    confidences = expit(rng.normal(1.5, 1.5, count))
    return confidences.astype(np.float32), rng.random(count) < expit(offset + slope * logit(confidences))


@pytest.mark.parametrize(("offset", "slope"), [(0.0, 1.0), (-1.0, 0.5), (0.5, 2.0)])
def test_trust_finds_how_often_a_model_is_right(offset: float, slope: float) -> None:
    trust = fit_trust(*drawn(20_000, offset, slope))
    assert (trust.offset, trust.slope) == pytest.approx((offset, slope), abs=0.1)
    grid = np.array([0.5, 0.8, 0.99])
    np.testing.assert_allclose(trust.right(grid), expit(offset + slope * logit(grid)), atol=0.02)


def test_trust_is_the_maximum_of_likelihood_and_prior() -> None:
    confidences, correct = drawn(30, -0.5)
    odds = log_odds(confidences)

    def loss(found: np.ndarray) -> float:
        right = expit(found[0] + found[1] * odds)
        prior = PRIOR / 2 * (found[0] ** 2 + (found[1] - 1) ** 2)
        return float(-np.log(np.where(correct, right, 1 - right)).sum() + prior)

    best = minimize(loss, [0.0, 1.0], tol=1e-12).x
    trust = fit_trust(confidences, correct)
    assert (trust.offset, trust.slope) == pytest.approx(tuple(best), abs=1e-4)


def test_without_images_confidences_are_believed() -> None:
    trust = fit_trust(np.empty(0, np.float32), np.empty(0, bool))
    np.testing.assert_allclose(trust.right(np.array([0.3, 0.9])), [0.3, 0.9])
    one = fit_trust(np.array([0.9], np.float32), np.array([True])).right(np.array([0.9]))
    assert 0.9 < one[0] < 0.95, "one image is no proof"


def test_a_model_that_is_righter_where_it_is_less_sure_has_a_flat_trust() -> None:
    confidences, correct = drawn(2000, 0, -1)
    assert fit_trust(confidences, correct).slope == 0


def test_shares_above_and_their_interval() -> None:
    confidences, correct = drawn(300)
    trust = fit_trust(confidences, correct)
    grid, images = np.array([0.5, 0.8, 0.95]), np.array([10.0, 0.0, 30.0])
    right = trust.right(grid)
    wanted = [(10 * right[0] + 30 * right[2]) / 40, right[2], right[2]]
    np.testing.assert_allclose(trust.above(grid, images), wanted)
    # 95% of the intervals hold the truth: how often those who are this sure are right.
    inside = 0
    for seed in range(60):
        found = fit_trust(*drawn(300, seed=seed + 1))
        low, high = found.interval(grid, np.array([0.0, 0.0, 1.0]))
        inside += low[2] <= 0.95 <= high[2]
    assert inside >= 51


def test_a_few_images_that_are_all_right_make_no_model_certain() -> None:
    log_probs, labels = np.log([[0.7, 0.2, 0.1]] * 5), np.zeros(5, int)
    assert fit_temperature(log_probs, labels) == pytest.approx(0.05, rel=0.1)
    held = fit_temperature(log_probs, labels, FIRMNESS)
    assert 0.5 < held < 0.9
    many = fit_temperature(np.repeat(log_probs, 500, 0), np.repeat(labels, 500), FIRMNESS)
    assert many < 0.25, "many images outweigh the prior"
