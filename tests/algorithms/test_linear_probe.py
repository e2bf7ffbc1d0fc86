"""The fitted head against scikit-learn by hand, and what cross-fitting has to say of images that were fitted."""

import numpy as np
import pytest
from scipy.special import log_softmax
from sklearn.linear_model import LogisticRegression

from selftrain.algorithms.linear_probe import STRENGTHS, WITHOUT_CHOICE, _folds, fit_head
from selftrain.calibration import at_temperature


def clusters(
    per_class: int, classes: int = 3, width: int = 6, spread: float = 1.0, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(classes, width))
    labels = np.repeat(np.arange(classes), per_class)
    return (5 + 3 * (centres[labels] + spread * rng.normal(size=(len(labels), width)))).astype(np.float32), labels


def test_the_head_is_logistic_regression_on_centred_features_at_the_temperature_of_held_out_images() -> None:
    features, labels = clusters(8)
    head = fit_head(features, labels, 3, 4, 0)
    inputs = features.astype(np.float64) - features.mean(axis=0, dtype=np.float64)
    inputs /= np.linalg.norm(inputs, axis=1).mean()
    fold_of = _folds(labels, 4, 0)
    held_out = {}
    for c in STRENGTHS:
        log_probs = np.empty((len(labels), 3))
        for fold in range(4):
            fitted = LogisticRegression(C=c, max_iter=1000).fit(inputs[fold_of != fold], labels[fold_of != fold])
            log_probs[fold_of == fold] = fitted.predict_log_proba(inputs[fold_of == fold])
        held_out[c] = log_probs
    likelihood = {c: found[np.arange(len(labels)), labels].mean() for c, found in held_out.items()}
    assert head.strength == max(likelihood, key=likelihood.__getitem__)
    found = held_out[head.strength]
    grid = np.exp(np.linspace(-1.5, 1.5, 301))
    losses = [2 * np.log(t) ** 2 - at_temperature(found, t)[np.arange(len(labels)), labels].sum() for t in grid]
    assert head.temperature == pytest.approx(grid[int(np.argmin(losses))], rel=0.02)
    assert head.held_out_accuracy == (found.argmax(axis=1) == labels).mean()
    whole = LogisticRegression(C=head.strength, max_iter=1000).fit(inputs, labels)
    wanted = at_temperature(whole.predict_log_proba(inputs), head.temperature)
    np.testing.assert_allclose(log_softmax(features @ head.weight.T + head.bias, axis=1), wanted, atol=1e-6)


def test_folds_are_class_by_class_and_each_image_is_held_out_once() -> None:
    labels = np.array([0] * 7 + [1] * 5 + [2])
    folds = _folds(labels, 3, 1)
    assert folds[labels == 2].tolist() == [-1], "a class with one image is in every fit"
    for label in (0, 1):
        counts = np.bincount(folds[labels == label], minlength=3)
        assert counts.max() - counts.min() <= 1
    assert set(_folds(np.array([0, 0, 1, 1, 1, 1]), 5, 0)) == {0, 1}, "no more folds than a class has images"
    assert not np.array_equal(folds, _folds(labels, 3, 2))


def test_confidences_are_those_of_images_that_were_not_fitted() -> None:
    # Labels have nothing to do with the features: what is fitted is certain, what is not is chance.
    rng = np.random.default_rng(0)
    features, labels = rng.normal(size=(60, 200)).astype(np.float32), np.arange(60) % 4
    head = fit_head(features, labels, 4, 5, 0)
    assert head.held_out_accuracy < 0.45
    probs = np.exp(log_softmax(rng.normal(size=(500, 200)) @ head.weight.T + head.bias, axis=1))
    assert probs.max(axis=1).mean() < 0.45


def test_confidences_are_as_often_right_as_they_say() -> None:
    features, labels = clusters(1000, spread=1.5)
    rng = np.random.default_rng(1)
    fitted_on = np.concatenate([rng.permutation(np.flatnonzero(labels == label))[:30] for label in range(3)])
    head = fit_head(features[fitted_on], labels[fitted_on], 3, 5, 0)
    rest = np.setdiff1d(np.arange(len(labels)), fitted_on)
    probs = np.exp(log_softmax(features[rest] @ head.weight.T + head.bias, axis=1))
    right = probs.argmax(axis=1) == labels[rest]
    assert 0.6 < right.mean() < 0.95
    assert probs.max(axis=1).mean() == pytest.approx(right.mean(), abs=0.05)


def test_two_classes_have_two_logits_and_one_image_a_class_has_no_choice() -> None:
    features, labels = clusters(1, classes=2)
    head = fit_head(features, labels, 2, 5, 0)
    assert (head.strength, head.temperature, head.weight.shape) == (WITHOUT_CHOICE, 1.0, (2, 6))
    assert np.isnan(head.held_out_accuracy)
    features, labels = clusters(20, classes=2)
    head = fit_head(features, labels, 2, 5, 0)
    inputs = features - features.mean(axis=0, dtype=np.float64)
    inputs /= np.linalg.norm(inputs, axis=1).mean()
    wanted = LogisticRegression(C=head.strength, max_iter=1000).fit(inputs, labels).predict_log_proba(inputs)
    found = log_softmax(features @ head.weight.T + head.bias, axis=1)
    np.testing.assert_allclose(found, at_temperature(wanted, head.temperature), atol=1e-6)
