"""The main job over five seeds, and the README's table of it.

    make seeds

Every seed draws its own labeled images and out-of-domain crops; validation and test stay the same. Each runs as a DVC
experiment in a folder of its own, so the workspace is not touched; experiments that are done are not run again.
"""

import argparse
import json
import statistics
import subprocess
from typing import Any

from scipy.stats import t as student_t

SEEDS = range(5)


def experiments() -> dict[str, dict[str, Any]]:
    """Metrics by run of every finished `seed-N` experiment."""
    shown = subprocess.run(["dvc", "exp", "show", "--json", "-A"], capture_output=True, text=True, check=True).stdout
    found: dict[str, dict[str, Any]] = {}
    for commit in json.loads(shown):
        for experiment in commit.get("experiments") or []:
            name = experiment.get("name") or ""
            data = (experiment["revs"][0].get("data") or {}).get("metrics") or {}
            runs = {path.split("/")[-2]: value["data"] for path, value in data.items() if path.endswith("metrics.json")}
            if name.startswith("seed-") and runs:
                found[name] = runs
    return found


def mean_and_interval(values: list[float]) -> str:
    """Mean ± half of the 95% t-interval, in per cent."""
    half = student_t.ppf(0.975, len(values) - 1) * statistics.stdev(values) / len(values) ** 0.5
    return f"{100 * statistics.mean(values):.1f} ± {100 * half:.1f}"


def main() -> None:
    """Run what is missing, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--set", action="append", default=[], metavar="PARAM=VALUE", help="passed to dvc exp run")
    arguments = parser.parse_args()
    for seed in SEEDS:
        if f"seed-{seed}" not in experiments():
            changes = [part for change in [f"seed={seed}", *arguments.set] for part in ("--set-param", change)]
            subprocess.run(["dvc", "exp", "run", "--temp", "--name", f"seed-{seed}", *changes], check=True)
    found = experiments()
    runs = list(found["seed-0"])
    print(f"| run | {' | '.join(f'seed {seed}' for seed in SEEDS)} | mean |")
    print(f"| --- |{' ---: |' * (len(SEEDS) + 1)}")
    for run in sorted(runs, key=lambda name: (name != "teacher", name != "labeled_only", name)):
        values = [found[f"seed-{seed}"][run]["test_accuracy"] for seed in SEEDS]
        cells = " | ".join(f"{100 * value:.1f}" for value in values)
        print(f"| {run} | {cells} | {mean_and_interval(values)} |")
    teacher, control, last = (
        [found[f"seed-{seed}"][run]["test_accuracy"] for seed in SEEDS]
        for run in ("teacher", "labeled_only", max(runs))
    )
    for name, other in (("the teacher", teacher), ("the same student without unlabeled images", control)):
        gains = [one - two for one, two in zip(last, other, strict=True)]
        print(f"\n{max(runs)} over {name}: {mean_and_interval(gains)} points, paired by seed")


if __name__ == "__main__":
    main()
