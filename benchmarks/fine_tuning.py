"""What training the whole network gives of few labeled photographs: the lower rows of README's table.

    python benchmarks/fine_tuning.py --images FOLDER --out FOLDER [--per-class 5 10 20] [--seeds 5] [--features FILE]

FOLDER has ``train`` and ``test`` with a folder of images a class; they are cut as in benchmarks/photographs.py, whose
probe the figures are compared with, paired by the seed. ``--out`` keeps what is done; a run that was killed goes on.
Nothing is chosen on ``test``: the last weights count. Minutes a seed on 2 cores.

- fine-tuning: the labeled photographs alone, as `selftrain init` writes its control `labeled_only`
- FixMatch: the same network, noise and steps, with the pool
"""

import argparse
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
from photograph_features import MODEL, Split, features, interval, lay_out

import selftrain as st
from selftrain.algorithms.linear_probe import fit_head

RECIPE: dict[str, Any] = {
    "model": MODEL, "weights": "package", "head": "linear_probe", "layer_decay": 0.8, "image_size": 128,
    "crop_fraction": 0.95, "steps": 150, "batch_size": 16, "learning_rate": 0.001, "result": "last",
    "validate_every": 150,
    "noise": {"random_crop": [0.35, 1.0], "flip": 0.5, "randaugment_ops": 2, "randaugment_magnitude": 9,
              "dropout": 0.2, "stochastic_depth": 0.0},
}  # fmt: skip
WHOLE_POOL = {"policy": "threshold", "threshold": 0.0, "per_class": "all"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--per-class", type=int, nargs="+", default=[5, 10, 20])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--features", type=Path, help="A file to keep the probe's features in.")
    options = parser.parse_args()
    train, test = features(options.images.resolve(), options.features)
    images = options.images.resolve()
    options.out.mkdir(parents=True, exist_ok=True)
    os.chdir(options.out)
    print("| labels a class | | pool right | surest half right | test | above the probe |")
    print("| ---: | --- | ---: | ---: | ---: | ---: |")
    for per_class in options.per_class:
        found = [one_seed(images, train, test, per_class, seed) for seed in range(options.seeds)]
        for name in ("fine-tuning", "FixMatch"):
            rows = np.array([of_seed[name] for of_seed in found])
            above = interval(rows[:, 2] - np.array([of_seed["probe"] for of_seed in found]))
            columns = [interval(column, signed=False) for column in rows.T]
            print(f"| {per_class} | {name} | {' | '.join(columns)} | {above} |", flush=True)


def one_seed(images: Path, train: Split, test: Split, per_class: int, seed: int) -> dict[str, Any]:
    """By method (right on the pool, of its surest half, on test) in per cent, and the probe's figure on test."""
    folder = Path(f"{per_class}-{seed}")
    done = folder / "figures.json"
    if done.exists():
        return dict(json.loads(done.read_text()))
    files, labeled, pool = lay_out(images, per_class, seed, folder)
    of_pool = [files[place] for place in pool]
    on_test = sorted((images / "test").glob("*/*"))
    given: dict[str, Any] = {"validation": images / "test", "seed": seed, "hardware": {"device": "auto"}}
    fine_tuned = st.train(folder / "labeled", out=f"{folder}-fine", **given, **RECIPE)
    fixmatch = st.train(
        folder / "labeled", pool=folder / "pool", teacher=fine_tuned, algorithm="fixmatch", select=WHOLE_POOL,
        out=f"{folder}-fixmatch", **given, **RECIPE,
    )  # fmt: skip
    probe = fit_head(train[0][labeled], train[1][labeled], int(train[1].max()) + 1, 5, seed)
    right = (test[0] @ probe.weight.T + probe.bias).argmax(axis=1) == test[1]
    found: dict[str, Any] = {"probe": 100 * float(right.mean())}
    for name, model in {"fine-tuning": fine_tuned, "FixMatch": fixmatch}.items():
        found[name] = measured(model, of_pool, on_test)
    done.write_text(json.dumps(found))
    return found


def measured(model: st.Model, pool: list[Path], test: list[Path]) -> list[float]:
    of_pool, of_test = model.predict(pool), model.predict(test)
    right = of_pool["label"].to_numpy() == [path.parent.name for path in pool]
    surest = np.argsort(-of_pool["confidence"].to_numpy(), kind="stable")[: len(pool) // 2]
    on_test = of_test["label"].to_numpy() == [path.parent.name for path in test]
    return [100 * float(share.mean()) for share in (right, right[surest], on_test)]


if __name__ == "__main__":
    main()
