"""The main job over five seeds, and the README's table of it; and other pipelines beside it.

    make seeds
    make seeds PIPELINES="self_training noisy_student_lite robustness"

Every seed draws its own labeled images and out-of-domain crops; validation and test stay the same. Each runs in a clone
of its own in .selftrain/seeds, made of what is committed, so that neither the workspace nor what was ingested before
plays a part. A seed that is done is not run again; remove its folder to have it anew.
"""

import json
import os
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from scipy.stats import t as student_t

SEEDS = range(5)
CLONES = Path(".selftrain/seeds").resolve()
MAIN = "noisy_student"


def run_seed(seed: int, pipeline: str) -> Path:
    """Reproduce a pipeline with a seed in a clone, if that was not done yet; return its evaluations."""
    clone = CLONES / f"seed-{seed}"
    evaluations = clone / "evaluation" / pipeline
    if not clone.exists():
        subprocess.run(["git", "clone", "--quiet", ".", str(clone)], check=True)
        yaml = YAML()
        for params in [clone / "params.yaml", *clone.glob("pipelines/*/params.yaml")]:
            values = yaml.load(params)
            values["seed"] = seed
            yaml.dump(values, params)
    done = clone / f"{pipeline}.done"
    if not done.exists():
        target = [] if pipeline == MAIN else [f"pipelines/{pipeline}/dvc.yaml"]
        environment = os.environ | {"PYTHONPATH": str(clone / "src")}
        subprocess.run(["dvc", "repro", "--quiet", *target], cwd=clone, env=environment, check=True)
        done.touch()
    return evaluations


def figures(evaluations: Path) -> dict[str, float]:
    """Every run's test accuracy in per cent, in the order of the rounds; of ``robustness``, its mCE."""
    if (evaluations / "metrics.json").exists():
        return {name: 100 * own["mce"] for name, own in json.loads((evaluations / "metrics.json").read_text()).items()}
    metrics: dict[str, Any] = {
        path.parent.name: json.loads(path.read_text()) for path in evaluations.glob("*/metrics.json")
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


def main() -> None:
    """Run what is missing, then print the tables and the gains, paired by seed."""
    found = [figures(run_seed(seed, MAIN)) for seed in SEEDS]
    print_table(found)
    last = list(found[0])[-1]
    for other in ("teacher", "labeled_only"):
        print(f"\n{last} over {other}: {mean_and_interval([one[last] - one[other] for one in found])} points")
    for pipeline in sys.argv[1:]:
        others = [figures(run_seed(seed, pipeline)) for seed in SEEDS]
        print(f"\n{pipeline}\n")
        print_table(others)
        # Robustness has the main job's runs in its own table.
        mains = others if pipeline == "robustness" else found
        for name in others[0]:
            gains = [main[last] - other[name] for main, other in zip(mains, others, strict=True)]
            print(f"\n{last} of the main job over {name}: {mean_and_interval(gains)} points")


if __name__ == "__main__":
    main()
