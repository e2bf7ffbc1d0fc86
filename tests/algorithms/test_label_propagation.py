"""Label propagation against the solution of its linear system, written by hand, and what it is for."""

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from selftrain.algorithms.label_propagation import LabelPropagation, LabelPropagationConfig, propagate
from selftrain.learning.closed_form import FittedHead, FittedTo, Pool


def solved(features: NDArray[np.floating], start: NDArray[np.floating], k: int, alpha: float) -> NDArray[np.floating]:
    """(1 − α)·(I − α·S)⁻¹·Y, with dense matrices and a loop."""
    count = len(features)
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    graph = np.zeros((count, count))
    for i in range(count):
        others = sorted((j for j in range(count) if j != i), key=lambda j: -float(unit[i] @ unit[j]))
        for j in others[:k]:
            graph[i, j] = max(float(unit[i] @ unit[j]), 0) ** 3
    both = graph + graph.T
    degree = both.sum(axis=1)
    normalised = both / np.sqrt(np.outer(degree, degree))
    found = np.linalg.solve(np.eye(count) - alpha * normalised, (1 - alpha) * start)
    return found / found.sum(axis=1, keepdims=True)


@pytest.mark.parametrize(("neighbours", "spread"), [(3, 0.5), (5, 0.8), (7, 0.95)])
def test_propagated_labels_solve_the_papers_system(neighbours: int, spread: float) -> None:
    rng = np.random.default_rng(neighbours)
    features = rng.normal(size=(40, 6)) + 1
    start = rng.dirichlet(np.ones(3), 40)
    found = propagate(features, start, neighbours, spread)
    np.testing.assert_allclose(found, solved(features, start, neighbours, spread), atol=5e-4)


def test_without_spread_labels_stay_and_more_neighbours_than_images_are_all_of_them() -> None:
    rng = np.random.default_rng(0)
    features, start = rng.normal(size=(5, 4)) + 2, rng.dirichlet(np.ones(3), 5)
    np.testing.assert_allclose(propagate(features, start, 3, 0), start)
    np.testing.assert_allclose(propagate(features, start, 99, 0.5), propagate(features, start, 4, 0.5))


def noisy_teacher(
    known: NDArray[np.int64] | None = None, weight: float = 1.0, copies: NDArray[np.int64] | None = None
) -> tuple[NDArray[np.floating], NDArray[np.int64], NDArray[np.int64], Pool]:
    """(labeled features, their labels, the pool's true labels, the pool): six clusters, two of each class.

    The teacher mistakes a third of the pool, anywhere.
    """
    rng = np.random.default_rng(0)
    cluster = np.arange(306) % 6
    truth = cluster % 3
    features = rng.normal(size=(6, 20))[cluster] * 2 + rng.normal(size=(306, 20)) * 0.7
    said = np.where(rng.random(300) < 1 / 3, (truth[6:] + 1) % 3, truth[6:])
    log_probs = np.log(np.eye(3)[said] * 0.7 + 0.1)
    known = np.full(300, -1) if known is None else known
    copies = np.ones(300, int) if copies is None else copies
    return features[:6], truth[:6], truth[6:], Pool(features[6:], log_probs, known, copies, weight)


def labels_of(head: FittedHead, features: NDArray[np.floating]) -> NDArray[np.int64]:
    return (features @ head.weight.T + head.bias).argmax(axis=1)


def test_what_most_neighbours_say_outvotes_a_mistaken_teacher() -> None:
    features, labels, truth, pool = noisy_teacher()
    head = LabelPropagation.fit(LabelPropagationConfig(spread=0.95), FittedTo(features, labels, 3, pool), 0)
    assert head.temperature is None, "it is not calibrated by images that its teacher has learned"
    propagated = propagate(pool.features, np.exp(pool.log_probs), 10, 0.95).argmax(axis=1)
    assert (pool.log_probs.argmax(axis=1) == truth).mean() < 0.7
    assert (propagated == truth).mean() > 0.95
    assert (labels_of(head, pool.features) == truth).mean() > 0.93, "as regular as the folds of six images allow"


def test_what_a_person_said_is_learned_as_it_was_said() -> None:
    features, labels, truth, pool = noisy_teacher(known=(np.arange(6, 306) % 3 + 1) % 3, weight=100)
    head = LabelPropagation.fit(LabelPropagationConfig(), FittedTo(features, labels, 3, pool), 0)
    assert (labels_of(head, pool.features) == pool.known).mean() > 0.95, "a person outweighs all neighbours"
    assert (labels_of(head, pool.features) == truth).mean() < 0.05


def test_the_fit_weighs_copies_and_the_ratio_of_the_pool() -> None:
    """Against scikit-learn's own fit to the same images, each repeated as often as it counts."""
    copies = np.arange(300) % 3 + 1
    features, labels, _, pool = noisy_teacher(known=np.arange(300) % 3, weight=2.0, copies=copies)
    head = LabelPropagation.fit(LabelPropagationConfig(spread=0), FittedTo(features, labels, 3, pool), 0)
    everything = np.concatenate([features, pool.features])
    inputs = everything - everything.mean(axis=0)
    inputs /= np.linalg.norm(inputs, axis=1).mean()
    # 600 copies of 300 images weigh as much as 2 · 6 labeled ones: 50 of each labeled image, one of each copy.
    often = np.concatenate([np.full(6, 50), copies])
    wanted = LogisticRegression(C=head.strength / 50, max_iter=1000).fit(
        np.repeat(inputs, often, axis=0), np.repeat(np.concatenate([labels, pool.known]), often)
    )
    found = everything @ head.weight.T + head.bias
    log_probs = found - np.log(np.exp(found).sum(axis=1, keepdims=True))
    np.testing.assert_allclose(log_probs, wanted.predict_log_proba(inputs), atol=2e-2)
