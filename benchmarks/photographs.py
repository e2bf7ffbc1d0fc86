"""What can be had of few labeled photographs and a pool without training the network: README's table.

    python benchmarks/photographs.py --images FOLDER [--per-class 5 10 20] [--seeds 5] [--features FILE.npz]

FOLDER has ``train`` and ``test`` with a folder of images a class. Of ``train``, so many images a class are labeled, cut
by the seed; the rest is the pool, whose hidden truth measures the labels. Nothing is chosen on ``test``. Intervals are
Student's, 95%; what is above the probe is paired by the seed.

- linear probe: the first teacher that `selftrain init` writes for photographs
- plain self-training: three rounds of a probe on labels above 0.7, hard, every image once
- label propagation: the first round that `selftrain init` writes, from the probe's predictions
- all labels: a probe of all of ``train``
"""

import argparse
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from photograph_features import Split, cut, features, interval, over_seeds
from scipy.special import log_softmax

from selftrain.algorithms.label_propagation import LabelPropagation, LabelPropagationConfig
from selftrain.algorithms.linear_probe import WITHOUT_CHOICE, fit_head, logistic_regression, of_features, standardised
from selftrain.learning.closed_form import FittedHead, FittedTo, Pool

THRESHOLD, ROUNDS = 0.7, 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--per-class", type=int, nargs="+", default=[5, 10, 20])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--features", type=Path, help="A file to keep the features in.")
    options = parser.parse_args()
    train, test = features(options.images, options.features)
    print(f"{len(train[1]):,} training images, {len(test[1]):,} test images, {options.seeds} seeds\n")
    every = fit_head(*train, int(train[1].max()) + 1, 5, 0)
    print(f"all labels: {100 * (labels_of(every, test[0]) == test[1]).mean():.1f}% on test\n")
    print("| labels a class | | pool right | surest half right | test | above the probe |")
    print("| ---: | --- | ---: | ---: | ---: | ---: |")
    for per_class in options.per_class:
        found = over_seeds(options.seeds, partial(one_seed, train, test, per_class))
        probe = found["linear probe"]
        for name, rows in found.items():
            columns = [interval(column, signed=False) for column in rows.T]
            above = "–" if name == "linear probe" else interval(rows[:, 2] - probe[:, 2])
            print(f"| {per_class} | {name} | {' | '.join(columns)} | {above} |", flush=True)


def one_seed(train: Split, test: Split, per_class: int, seed: int) -> dict[str, list[float]]:
    """(right on the pool, of its surest half, on test) in per cent, by method."""
    features_, labels = train
    classes = int(labels.max()) + 1
    labeled, pool = cut(labels, per_class, np.random.default_rng(seed))
    probe = fit_head(features_[labeled], labels[labeled], classes, 5, seed)
    log_probs = log_softmax(features_[pool] @ probe.weight.T + probe.bias, axis=1)
    nobody = np.full(len(pool), -1)
    of_pool = Pool(features_[pool], log_probs.astype(np.float16), nobody, np.ones(len(pool)), 1.0)
    heads = {
        "linear probe": probe,
        "plain self-training": self_training(features_, labels, labeled, pool, probe),
        "label propagation": LabelPropagation.fit(
            LabelPropagationConfig(), FittedTo(features_[labeled], labels[labeled], classes, of_pool), seed
        ),
    }
    return {name: measured(head, features_[pool], labels[pool], test) for name, head in heads.items()}


def self_training(
    features_: NDArray[np.float32],
    labels: NDArray[np.int32],
    labeled: NDArray[np.int64],
    pool: NDArray[np.int64],
    probe: FittedHead,
) -> FittedHead:
    inputs, offset, scale = standardised(features_)
    classes, head = len(probe.bias), probe
    for _ in range(ROUNDS):
        log_probs = log_softmax(features_[pool] @ head.weight.T + head.bias, axis=1)
        kept = np.exp(log_probs.max(axis=1)) > THRESHOLD
        places = np.concatenate([labeled, pool[kept]])
        said = np.concatenate([labels[labeled], log_probs.argmax(axis=1)[kept]])
        fitted = logistic_regression(inputs[places], said, classes, WITHOUT_CHOICE)
        head = FittedHead(*of_features(*fitted, offset, scale), WITHOUT_CHOICE, None, float("nan"))
    return head


def measured(head: FittedHead, pool: NDArray[np.float32], truth: NDArray[np.int32], test: Split) -> list[float]:
    log_probs = log_softmax(pool @ head.weight.T + head.bias, axis=1)
    right = log_probs.argmax(axis=1) == truth
    surest = np.argsort(-log_probs.max(axis=1), kind="stable")[: len(pool) // 2]
    on_test = labels_of(head, test[0]) == test[1]
    return [100 * float(share.mean()) for share in (right, right[surest], on_test)]


def labels_of(head: FittedHead, vectors: NDArray[np.float32]) -> NDArray[np.int64]:
    labels: NDArray[np.int64] = (vectors @ head.weight.T + head.bias).argmax(axis=1)
    return labels


if __name__ == "__main__":
    main()
