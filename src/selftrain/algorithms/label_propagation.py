"""Label propagation: images pass their labels on to those that look alike, and a classifier learns the outcome.

Zhou et al. 2004, "Learning with local and global consistency": over a graph of nearest neighbours with the normalised
weights S, the labels F solve F = α·S·F + (1 − α)·Y. Y is one-hot for labeled images; here it is the teacher's
prediction for the others. The graph is that of Iscen et al. 2019 (arXiv 1904.04717, Section 4.1): cosines of the k most
similar images, to the power γ, in both directions. A linear classifier of the network's features is then fitted to
labels and propagated labels, so that the result is a network like any other and labels held-out images too.

All pairs of images are compared: minutes for 100,000 images on a CPU, and no way for many millions.
"""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from selftrain.algorithms.linear_probe import (
    LinearProbeConfig,
    fit_head,
    logistic_regression,
    of_features,
    standardised,
)
from selftrain.learning.algorithm import Algorithm
from selftrain.learning.closed_form import FittedHead, FittedTo

COMPARED = 1000
"""Images that are compared with all others at a time."""
POWER = 3
"""γ."""
TOLERANCE = 1e-4
"""Of the solution, relative."""
NEGLIGIBLE = 0.01
"""Probability below which a class of a propagated label is no row of the fit."""


class LabelPropagationConfig(LinearProbeConfig):
    """``train.algorithm`` of a label propagation."""

    neighbours: int = Field(default=10, ge=1)
    """k, of each image."""
    spread: float = Field(default=0.8, ge=0, lt=1)
    """α: how much of a label comes from neighbours. 0: labels stay those of the teacher."""
    temperature: float = Field(default=0.5, gt=0)
    """Of the propagated labels, before the classifier is fitted: propagation flattens them."""


class LabelPropagation(Algorithm):
    """A classifier fitted to propagated labels, on a network that is not trained. It takes no steps."""

    Config = LabelPropagationConfig
    views = {"labeled": ("image", "label"), "unlabeled": ("image", "log_probs", "weight")}
    closed_form = True

    @classmethod
    def fit(cls, config: Any, given: FittedTo, seed: int) -> FittedHead:
        """See ``Algorithm``. The strength is that of a probe of the labeled images; there is no temperature.

        Held-out labeled images would say too much good of it: the teacher has learned all of them.
        """
        pool, labels, num_classes = given.pool, given.labels, given.num_classes
        assert pool is not None
        probe = fit_head(given.features, labels, num_classes, config.folds, seed)
        one_hot = np.eye(num_classes)
        start = np.concatenate([one_hot[labels], np.exp(pool.log_probs.astype(np.float64))])
        everything = np.concatenate([given.features, pool.features])
        propagated = propagate(everything, start, config.neighbours, config.spread)[len(labels) :]
        soft = propagated ** (1 / config.temperature)
        soft /= soft.sum(axis=1, keepdims=True)
        by_hand = pool.known >= 0
        soft[by_hand] = one_hot[pool.known[by_hand]]
        targets = np.concatenate([one_hot[labels], soft])
        shares = pool.weights / pool.weights.sum() * pool.ratio * len(labels)
        weights = np.concatenate([np.ones(len(labels)), shares])
        inputs, offset, scale = standardised(everything)
        rows, classes = np.nonzero(targets >= NEGLIGIBLE)
        fitted = logistic_regression(
            inputs[rows], classes, num_classes, probe.strength, weights[rows] * targets[rows, classes]
        )
        return FittedHead(*of_features(*fitted, offset, scale), probe.strength, None, probe.held_out_accuracy)


def propagate(
    features: NDArray[np.floating], start: NDArray[np.floating], neighbours: int, spread: float
) -> NDArray[np.float64]:
    """Features (N, D) and probabilities to start from (N, C) → propagated probabilities (N, C)."""
    graph = _normalised(_neighbour_graph(features, min(neighbours, len(features) - 1)))
    found = start.astype(np.float64)
    for _ in range(math.ceil(math.log(TOLERANCE) / math.log(spread)) if spread else 0):
        found = spread * (graph @ found) + (1 - spread) * start
    sums: NDArray[np.float64] = found.sum(axis=1, keepdims=True)
    return found / sums


def _neighbour_graph(features: NDArray[np.floating], neighbours: int) -> Any:
    """The sparse (N, N) matrix of cosines to the power γ: row i has those of i's nearest images, without itself."""
    from scipy.sparse import csr_matrix

    vectors = features.astype(np.float32)
    unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    nearest = np.empty((len(unit), neighbours), np.int64)
    weights = np.empty((len(unit), neighbours), np.float64)
    for begin in range(0, len(unit), COMPARED):
        places = np.arange(begin, min(begin + COMPARED, len(unit)))
        cosines = unit[places] @ unit.T  # (n, N)
        cosines[np.arange(len(places)), places] = -np.inf
        of_rows = np.argpartition(-cosines, neighbours - 1, axis=1)[:, :neighbours]
        nearest[places] = of_rows
        weights[places] = np.maximum(np.take_along_axis(cosines, of_rows, axis=1), 0).astype(np.float64) ** POWER
    rows = np.repeat(np.arange(len(unit)), neighbours)
    return csr_matrix((weights.ravel(), (rows, nearest.ravel())), shape=(len(unit), len(unit)))


def _normalised(graph: Any) -> Any:
    """S = D^(−1/2)·(A + Aᵀ)·D^(−1/2); an image without neighbours has a row of zeros."""
    from scipy.sparse import diags

    both = graph + graph.T
    degree = np.asarray(both.sum(axis=1)).ravel()
    root = diags(1 / np.sqrt(np.where(degree > 0, degree, np.inf)))
    return root @ both @ root
