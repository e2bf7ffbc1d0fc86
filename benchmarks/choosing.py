"""Every algorithm over seeds and conditions, into MLflow: what `selftrain choose` makes its page of.

    make choosing

The base condition is pipelines/choosing as it is; two others change the digits and take some of the algorithms. Each
seed runs in a clone of its own in .selftrain/choosing, two at a time with a thread each. What is done is not run again;
remove its folder to have it anew. About 70 minutes on 2 cores.
"""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from ruamel.yaml import YAML
from seeds import run_in_clone

from selftrain.plumbing.tracking import connect
from selftrain.studies.choosing import CONDITIONS, PIPELINE, SEEDS, Condition, experiment_of, with_runs

CLONES = Path(".selftrain/choosing").resolve()
LANES = 2


def run_condition(name: str, condition: Condition, seed: int) -> None:
    """One condition with one seed."""

    def change(clone: Path) -> None:
        yaml = YAML()
        main = yaml.load(clone / "params.yaml")
        main["digits"] |= condition.digits
        yaml.dump(main, clone / "params.yaml")
        if condition.runs is not None:
            path = clone / "pipelines" / PIPELINE / "params.yaml"
            yaml.dump(with_runs(yaml.load(path), condition.runs), path)

    uri = os.environ.get("MLFLOW_TRACKING_URI", f"sqlite:///{Path('mlflow.db').resolve()}")
    tracking = {"MLFLOW_TRACKING_URI": uri, "MLFLOW_EXPERIMENT_NAME": experiment_of(name)}
    run_in_clone(CLONES / f"{name}-{seed}", seed, PIPELINE, change, tracking)
    print(f"{name}, seed {seed}: done", flush=True)


def main() -> None:
    """Run what is missing, then print the tables."""
    wanted = [(name, condition, seed) for name, condition in CONDITIONS.items() for seed in SEEDS]
    for name in CONDITIONS:
        connect(experiment_of(name))
    with ThreadPoolExecutor(LANES) as lanes:
        list(lanes.map(lambda job: run_condition(*job), wanted))
    subprocess.run([sys.executable, "-m", "selftrain", "choose"], check=True)


if __name__ == "__main__":
    main()
