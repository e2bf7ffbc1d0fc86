"""A pipeline over five seeds, and its table: the main job, which is the README's, or those that are named.

    make seeds
    make seeds PIPELINES="meta_pseudo_labels reduced_meta_pseudo_labels"
    make seeds PIPELINES="noisy_student self_training robustness"

Every seed draws its own labeled images and out-of-domain crops; validation and test stay the same. Each runs in a clone
of its own in .selftrain/seeds, made of what is committed, so that neither the workspace nor what was ingested before
plays a part. A seed that is done is not run again; remove its folder to have it anew.
"""

import json
import os
import shutil
import statistics
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from scipy.stats import t as student_t

SEEDS = range(5)
CLONES = Path(".selftrain/seeds").resolve()
MAIN = "noisy_student"
ROBUSTNESS = "robustness"


def new_clone(clone: Path, change: Callable[[Path], None]) -> None:
    """Clone this repository and change the clone, which gets its name at the end: no half-made one is ever run."""
    half = clone.with_name(f".half-{clone.name}")
    shutil.rmtree(half, ignore_errors=True)
    subprocess.run(["git", "clone", "--quiet", ".", str(half)], check=True)
    change(half)
    half.rename(clone)


def run_in_clone(
    clone: Path,
    seed: int,
    pipeline: str,
    change: Callable[[Path], None] = lambda clone: None,
    settings: dict[str, str] | None = None,
) -> Path:
    """Reproduce a pipeline with a seed in a clone, if that was not done yet; return the clone.

    ``change`` may change a new clone's files; ``settings`` are more of the environment.
    """

    def prepared(made: Path) -> None:
        yaml = YAML()
        for params in [made / "params.yaml", *made.glob("pipelines/*/params.yaml")]:
            values = yaml.load(params)
            values["seed"] = seed
            yaml.dump(values, params)
        change(made)

    if not clone.exists():
        new_clone(clone, prepared)
    done = clone / f"{pipeline}.done"
    if not done.exists():
        target = [] if pipeline == MAIN else [f"pipelines/{pipeline}/dvc.yaml"]
        environment = os.environ | {"PYTHONPATH": str(clone / "src")} | (settings or {})
        check = [sys.executable, "-m", "selftrain", "check", "--pipeline", pipeline]
        subprocess.run(check, cwd=clone, env=environment, check=True, stdout=subprocess.DEVNULL)
        subprocess.run(["dvc", "repro", "--quiet", *target], cwd=clone, env=environment, check=True)
        done.touch()
    return clone


def run_seed(seed: int, pipeline: str) -> Path:
    """The clone in which a pipeline ran with a seed."""
    return run_in_clone(CLONES / f"seed-{seed}", seed, pipeline)


def figures(clone: Path, pipeline: str) -> dict[str, float]:
    """Every run's test accuracy in per cent, in the order of the rounds; of ``robustness``, its mCE."""
    if pipeline == ROBUSTNESS:
        tested = json.loads((clone / "robustness_figures" / pipeline / "metrics.json").read_text())
        return {name: 100 * run["mce"] for name, run in tested.items()}
    metrics: dict[str, Any] = {
        path.parent.name: json.loads(path.read_text())
        for path in (clone / "evaluation" / pipeline).glob("*/metrics.json")
    }
    names = sorted(metrics, key=lambda name: ("coverage" in metrics[name], name != "teacher", name))
    return {name: 100 * metrics[name]["test_accuracy"] for name in names}


def mean_and_interval(values: list[float]) -> str:
    """Mean ± half of the 95% t-interval."""
    half = student_t.ppf(0.975, len(values) - 1) * statistics.stdev(values) / len(values) ** 0.5
    return f"{statistics.mean(values):.1f} ± {half:.1f}"


def print_table(found: list[dict[str, float]]) -> None:
    """One row a run, one column a seed."""
    print(f"| run | {' | '.join(f'seed {seed}' for seed in SEEDS)} | mean |")
    print(f"| --- |{' ---: |' * (len(SEEDS) + 1)}")
    for name in found[0]:
        values = [one[name] for one in found]
        print(f"| {name} | {' | '.join(f'{value:.1f}' for value in values)} | {mean_and_interval(values)} |")


def gains(found: list[dict[str, float]], others: list[dict[str, float]], name: str, other: str) -> None:
    """Print by how much one run beats another, paired by seed."""
    paired = [one[name] - those[other] for one, those in zip(found, others, strict=True)]
    print(f"\n{name} over {other}: {mean_and_interval(paired)} points")


def main() -> None:
    """Run what is missing, then print each pipeline's table and its gains, paired by seed."""
    found = {name: [figures(run_seed(seed, name), name) for seed in SEEDS] for name in sys.argv[1:] or [MAIN]}
    for pipeline, by_seed in found.items():
        print(f"\n{pipeline}\n")
        print_table(by_seed)
        for name in by_seed[0]:
            if "teacher" in by_seed[0] and name != "teacher" and pipeline != ROBUSTNESS:
                gains(by_seed, by_seed, name, "teacher")
        if pipeline == ROBUSTNESS:
            for name in by_seed[0]:
                gains(by_seed, by_seed, "student3", name)
        elif MAIN in found and pipeline != MAIN:
            print("\nof the main job:")
            for name in by_seed[0]:
                gains(found[MAIN], by_seed, "student3", name)
    if MAIN in found:
        gains(found[MAIN], found[MAIN], "student3", "labeled_only")


if __name__ == "__main__":
    main()
