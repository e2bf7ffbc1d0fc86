"""Running a study: one `dvc exp` an arm and seed, its figures into MLflow."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from selftrain.code import code_digest, commands
from selftrain.plumbing.errors import UserError
from selftrain.plumbing.git import git
from selftrain.plumbing.progress import progress_bar
from selftrain.plumbing.tracking import TRACKING_URI, connect, tracking_uri
from selftrain.project import Project
from selftrain.studies.results import EXPERIMENT, recorded
from selftrain.studies.study import Study, experiment_name

TRAININGS = f"{EXPERIMENT} trainings"
"""The MLflow experiment of the trainings inside the studies: their curves."""
VERSIONED = ("src", "params.yaml", "dvc.yaml")


def run_study(name: str, study: Study, pipeline: str) -> str:
    """Run what is not in MLflow yet of a pipeline's study; return the version that its figures are of.

    Every arm is a DVC experiment in a workspace of its own, made from the newest commit: this one is not touched, and
    what arms have in common is taken from DVC's cache. Raises UserError if an experiment fails.
    """
    version = code_version(pipeline)
    if git("status", "--porcelain", "--untracked-files=no"):
        raise UserError("studies run what is committed, and tracked files differ from the commit; commit them first")
    done = recorded(name, version)
    wanted = [(arm, seed) for seed in study.seeds for arm in study.arms]
    todo = [(arm, seed) for arm, seed in wanted if any((arm, seed, run) not in done for run in study.measured(arm))]
    with progress_bar(f"study {name}", total=len(todo)) as advance:
        for arm, seed in todo:
            experiment = experiment_name(name, arm, seed)
            overrides = study.overrides(arm, seed, pipeline)
            _run_experiment(experiment, overrides, _targets(study.measured(arm), pipeline))
            for run in study.measured(arm):
                _record(name, arm, seed, run, version, experiment, pipeline, overrides)
            advance()
            print(f"{experiment}: done", flush=True)
    return version


def code_version(pipeline: str) -> str:
    """What results depend on, of the newest commit: its source, parameters and stages. Other commits change nothing.

    Of a program that is installed, its own digest.
    """
    if not git("rev-parse", "--verify", "--quiet", "HEAD"):
        raise UserError("studies need a git repository with a commit: DVC keeps experiments beside it")
    params = Project.open(pipeline=pipeline).params_path
    paths = dict.fromkeys((*VERSIONED, str(params), str(params.with_name("dvc.yaml"))))
    committed = git("ls-tree", "HEAD", "--", *paths)
    program = "" if Path("src/selftrain").is_dir() else "".join(code_digest(command) for command in commands())
    return hashlib.sha256(f"{committed}{program}".encode()).hexdigest()[:16]


def _targets(runs: list[str], pipeline: str) -> list[str]:
    stages = Project.open(pipeline=pipeline).params_path.with_name("dvc.yaml")
    return [f"{stages}:evaluate@{run}" for run in runs]


def _run_experiment(experiment: str, overrides: list[str], targets: list[str]) -> None:
    # One of the same name would be an error, and --force would also train again what is cached.
    subprocess.run([sys.executable, "-m", "dvc", "exp", "remove", experiment], capture_output=True, check=False)
    command = ["dvc", "exp", "run", "--temp", "--name", experiment]
    for override in overrides:
        command += ["--set-param", override]
    if Path("dvc.lock").exists() and not git("ls-files", "dvc.lock"):
        command += ["--copy-paths", "dvc.lock"]
    # The package is installed as a link to this workspace's source; each experiment has to run its own.
    source = os.pathsep.join(filter(None, ["src", os.environ.get("PYTHONPATH")]))
    settings = {TRACKING_URI: tracking_uri(), "MLFLOW_EXPERIMENT_NAME": TRAININGS, "PYTHONPATH": source}
    environment = os.environ | settings
    result = subprocess.run(
        [sys.executable, "-m", *command, *targets], env=environment, capture_output=True, text=True, check=False
    )
    if result.returncode:
        reason = " ".join((result.stdout + result.stderr).split())[-600:]
        raise UserError(f"experiment {experiment} failed: {reason}")


def _record(
    study: str, arm: str, seed: int, run: str, version: str, experiment: str, pipeline: str, overrides: list[str]
) -> None:
    """One run's figures, read from the experiment's own revision."""
    import time

    from dvc.api import DVCFileSystem
    from mlflow.entities import Metric, Param, RunTag

    figures = json.loads(DVCFileSystem(rev=experiment).read_text(f"/evaluation/{pipeline}/{run}/metrics.json"))
    client, experiment_id = connect(EXPERIMENT)
    changed = dict(override.partition("++")[2].split("=", 1) for override in overrides)
    values: dict[str, Any] = {name: value for name, value in figures.items() if isinstance(value, (int, float))}
    tags = {"study": study, "arm": arm, "seed": str(seed), "run": run, "version": version, "dvc_experiment": experiment}
    made = client.create_run(experiment_id, run_name=f"{study}: {arm} ({run}, seed {seed})", tags=tags)
    now = int(time.time() * 1000)
    client.log_batch(
        made.info.run_id,
        metrics=[Metric(key, float(value), now, 0) for key, value in values.items()],
        params=[Param(key, value) for key, value in changed.items()],
        tags=[RunTag("mlflow.source.git.commit", git("rev-parse", "HEAD"))],
    )
    client.set_terminated(made.info.run_id)
