"""What twenty corrections are worth on the digits, over five seeds, and which twenty to make.

    python benchmarks/corrections.py

A stand-in for a person, who knows hidden truth, looks at twenty kept pseudo-labels of the last round and corrects or
rejects those that are wrong; `dvc repro` makes all rounds anew. Three ways to choose the twenty: the review list, the
teacher's confidence, and chance. Each seed's base is that of `make seeds`, in the same clones.
"""

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
from seeds import CLONES, MAIN, SEEDS, mean_and_interval, run_seed

from selftrain.counters import mix
from selftrain.inspection.stand_in import correct_by_truth

LOOKED_AT = 20
ROUND = "student3"


def by_review(base: Path) -> pl.DataFrame:
    """The first of the review list."""
    return pl.read_parquet(base / "review" / MAIN / f"{ROUND}.parquet").sort("rank")


def by_confidence(base: Path) -> pl.DataFrame:
    """The least confident first."""
    return _kept(base).sort("confidence", "key")


def by_chance(base: Path) -> pl.DataFrame:
    """In an order drawn once."""
    kept = _kept(base)
    return kept[np.argsort(mix(7, kept["key"].to_numpy()), kind="stable")]


def _kept(base: Path) -> pl.DataFrame:
    return pl.read_parquet(base / "selections" / MAIN / ROUND / "*.parquet").filter(pl.col("decision") == "kept")


WAYS: dict[str, Callable[[Path], pl.DataFrame]] = {
    "review": by_review,
    "confidence": by_confidence,
    "chance": by_chance,
}


def corrected(seed: int, way: str) -> tuple[int, float]:
    """Correct and train again, if that was not done yet; return how many of the twenty were wrong, and the accuracy."""
    base = CLONES / f"seed-{seed}"
    clone = CLONES / f"seed-{seed}-{way}"
    done = clone / "corrected.done"
    if not done.exists():
        shutil.rmtree(clone, ignore_errors=True)
        shutil.copytree(base, clone, symlinks=True)
        looked_at = WAYS[way](base).head(LOOKED_AT)
        keys, labels = looked_at["key"].to_list(), looked_at["label"].to_list()
        wrong = correct_by_truth(keys, labels, clone / "data" / "corpus", clone / "corrections.parquet")
        environment = os.environ | {"PYTHONPATH": str(clone / "src")}
        subprocess.run(["dvc", "repro", "--quiet"], cwd=clone, env=environment, check=True)
        done.write_text(str(wrong))
    return int(done.read_text()), accuracy(clone / "evaluation" / MAIN)


def accuracy(evaluations: Path) -> float:
    """Of the last round on test, in per cent."""
    return 100 * float(json.loads((evaluations / ROUND / "metrics.json").read_text())["test_accuracy"])


def main() -> None:
    """Run what is missing, then print the table."""
    bases = [accuracy(run_seed(seed, MAIN) / "evaluation" / MAIN) for seed in SEEDS]
    print("| the twenty are chosen by | wrong among them | test accuracy of student 3 | gain |")
    print("| --- | ---: | ---: | ---: |")
    print(f"| (none corrected) | | {mean_and_interval(bases)} | |", flush=True)
    for way in WAYS:
        found = [corrected(seed, way) for seed in SEEDS]
        wrong = mean_and_interval([float(wrong) for wrong, _ in found])
        gain = mean_and_interval([changed - base for (_, changed), base in zip(found, bases, strict=True)])
        print(f"| {way} | {wrong} | {mean_and_interval([changed for _, changed in found])} | {gain} |", flush=True)


if __name__ == "__main__":
    main()
