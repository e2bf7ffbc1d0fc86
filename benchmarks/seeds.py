"""The main job over five seeds, and the README's table of it.

    make seeds

Every seed draws its own labeled images and out-of-domain crops; validation and test stay the same. Each runs in a clone
of its own in .selftrain/seeds, made of what is committed, so that neither the workspace nor what was ingested before
plays a part. A seed that is done is not run again; remove its folder to have it anew.
"""

import json
import os
import shutil
import statistics
import subprocess
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from scipy.stats import t as student_t

SEEDS = range(5)
CLONES = Path(".selftrain/seeds").resolve()


def run_seed(seed: int) -> Path:
    """Reproduce the main job with a seed in a clone, if that was not done yet; return its evaluations."""
    clone = CLONES / f"seed-{seed}"
    evaluations = clone / "evaluation" / "noisy_student"
    if (clone / "report" / "index.html").exists():
        return evaluations
    shutil.rmtree(clone, ignore_errors=True)
    subprocess.run(["git", "clone", "--quiet", ".", str(clone)], check=True)
    (clone / "dvc.lock").unlink(missing_ok=True)
    yaml, params = YAML(), clone / "params.yaml"
    values = yaml.load(params)
    values["seed"] = seed
    yaml.dump(values, params)
    environment = os.environ | {"PYTHONPATH": str(clone / "src")}
    subprocess.run(["dvc", "repro", "--quiet"], cwd=clone, env=environment, check=True)
    return evaluations


def accuracies(evaluations: Path) -> dict[str, float]:
    """Test accuracy of every run, in per cent, in the order of the rounds."""
    metrics: dict[str, Any] = {
        path.parent.name: json.loads(path.read_text()) for path in evaluations.glob("*/metrics.json")
    }
    names = sorted(metrics, key=lambda name: ("coverage" in metrics[name], name != "teacher", name))
    return {name: 100 * metrics[name]["test_accuracy"] for name in names}


def mean_and_interval(values: list[float]) -> str:
    """Mean ± half of the 95% t-interval."""
    half = student_t.ppf(0.975, len(values) - 1) * statistics.stdev(values) / len(values) ** 0.5
    return f"{statistics.mean(values):.1f} ± {half:.1f}"


def main() -> None:
    """Run what is missing, then print the table and the gains, paired by seed."""
    found = [accuracies(run_seed(seed)) for seed in SEEDS]
    print(f"| run | {' | '.join(f'seed {seed}' for seed in SEEDS)} | mean |")
    print(f"| --- |{' ---: |' * (len(SEEDS) + 1)}")
    for name in found[0]:
        values = [one[name] for one in found]
        print(f"| {name} | {' | '.join(f'{value:.1f}' for value in values)} | {mean_and_interval(values)} |")
    last = list(found[0])[-1]
    for other in ("teacher", "labeled_only"):
        print(f"\n{last} over {other}: {mean_and_interval([one[last] - one[other] for one in found])} points")


if __name__ == "__main__":
    main()
