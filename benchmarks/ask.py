"""What twenty answers of a person are worth, by which images the person is asked: hidden truth answers.

    python benchmarks/ask.py --images FOLDER [--per-class 2 5] [--seeds 10] [--features FILE.npz]

FOLDER has ``train`` and ``test`` with a folder of images a class. Of ``train``, so many images a class are labeled, cut
by the seed; the rest is the pool. A linear probe on EfficientNet-Lite0 (`selftrain[weights]`) is fitted before and
after twenty answers, and measured on ``test``. Gains are paired by the seed; intervals are Student's, 95%.

- random: any images of the pool
- margin: those between whose two likeliest classes the probe is least sure
- corrections: the same among the surer half of the pool, where labels are kept
- ask: what `selftrain ask` asks
"""

import argparse
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from photograph_features import cut, features, interval
from scipy.special import softmax

from selftrain.algorithms.linear_probe import fit_head
from selftrain.selection.ask import choose, doubtful

BUDGET = 20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--per-class", type=int, nargs="+", default=[2, 5])
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--first-seed", type=int, default=100)
    parser.add_argument("--features", type=Path, help="A file to keep the features in.")
    options = parser.parse_args()
    (train, labels), (test, test_labels) = features(options.images, options.features)
    print(f"{len(train):,} training images, {len(test):,} test images, {options.seeds} seeds, {BUDGET} answers")
    for per_class in options.per_class:
        before: list[float] = []
        gains: dict[str, list[float]] = {}
        for seed in range(options.first_seed, options.first_seed + options.seeds):
            accuracy, of_seed = one_seed(train, labels, test, test_labels, per_class, seed)
            before.append(accuracy)
            for name, value in of_seed.items():
                gains.setdefault(name, []).append(value - accuracy)
        print(f"\n{per_class} labels a class: {np.mean(before):.1f}% on test without answers\n")
        print("| asked | gain, points | above random |\n| --- | ---: | ---: |")
        for name, found in gains.items():
            above = "–" if name == "random" else interval(np.subtract(found, gains["random"]))
            print(f"| {name} | {interval(np.array(found))} | {above} |")


def one_seed(
    train: NDArray[np.float32],
    labels: NDArray[np.int32],
    test: NDArray[np.float32],
    test_labels: NDArray[np.int32],
    per_class: int,
    seed: int,
) -> tuple[float, dict[str, float]]:
    """(accuracy without answers, accuracy with twenty, by who was asked), in percent."""
    rng = np.random.default_rng(seed)
    classes = int(labels.max()) + 1
    labeled, pool = cut(labels, per_class, rng)

    def accuracy(places: NDArray[np.int64]) -> tuple[float, NDArray[np.float64]]:
        head = fit_head(train[places], labels[places], classes, 5, seed)
        right = (test @ head.weight.T + head.bias).argmax(axis=1) == test_labels
        return 100 * float(right.mean()), softmax(train[pool] @ head.weight.T + head.bias, axis=1)

    before, probs = accuracy(labeled)
    two = np.sort(probs, axis=1)[:, -2:]
    margins = two[:, 1] - two[:, 0]
    surer = np.argsort(-probs.max(axis=1), kind="stable")[: len(pool) // 2]
    candidates = doubtful(margins, BUDGET)
    asked = {
        "random": rng.permutation(len(pool))[:BUDGET],
        "margin": np.argsort(margins, kind="stable")[:BUDGET],
        "corrections": surer[np.argsort(margins[surer], kind="stable")[:BUDGET]],
        "ask": candidates[choose(train[pool][candidates], margins[candidates], BUDGET, seed)],
    }
    return before, {name: accuracy(np.concatenate([labeled, pool[places]]))[0] for name, places in asked.items()}


if __name__ == "__main__":
    main()
