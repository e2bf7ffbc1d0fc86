"""A copy of the repository in a folder of its own, and what its commands say."""

import contextlib
import io
import os
import shlex
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import yaml

ROOT = Path(__file__).parent.parent
BIN = Path(sys.executable).parent


ABSENT = ("installed_code", "digits", "shift", "ingest", "robustness_figures", "card", "footprint", "replication")
PIPELINE: dict[str, Any] = {
    "pipeline": "noisy_student",
    "corpus": "data/corpus",
    "corrections": "corrections.parquet",
    "tested": {},
    "stages": {
        "code": ["src/selftrain"],
        "results": ["noisy_student"],
        **{stage: [] for stage in ABSENT},
    },
}
"""What every params.yaml says of its pipeline."""


def with_pipeline(params: dict[str, Any]) -> dict[str, Any]:
    """Parameters with what every params.yaml says, and all their runs in the list."""
    runs = [
        run
        for section in ("teachers", "ensembles", "pretrained", "supervised", "leaky", "rounds")
        for run in params.get(section) or {}
    ]
    return {**PIPELINE, **params, "runs": runs}


class Project:
    """A git repository with DVC in it, and what its commands say."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = os.environ | {
            "PATH": f"{BIN}:{os.environ['PATH']}",
            "PYTHONPATH": str(folder / "src"),
            "GIT_AUTHOR_NAME": "t", "GIT_AUTHOR_EMAIL": "t@t", "GIT_COMMITTER_NAME": "t", "GIT_COMMITTER_EMAIL": "t@t",
        }  # fmt: skip

    def run(self, *command: str, silent: bool = False) -> str:
        """What a command prints; ``silent``: it must have nothing to complain of."""
        result = subprocess.run(
            command, cwd=self.folder, env=self.environment, capture_output=True, text=True, check=False
        )
        assert result.returncode == 0, result.stdout + result.stderr
        assert not silent or result.stderr == ""
        return result.stdout

    def repro(self, silent: bool = False) -> list[str]:
        """``dvc repro``; returns the stages that ran."""
        lines = self.run("dvc", "repro", silent=silent).splitlines()
        return [line.split("'")[1] for line in lines if line.startswith("Running stage")]

    def change(self, value: Any, *path: str) -> None:
        """Set a value in params.yaml."""
        params = yaml.safe_load((self.folder / "params.yaml").read_text())
        section = params
        for name in path[:-1]:
            section = section[name]
        section[path[-1]] = value
        (self.folder / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))

    def runs(self) -> list[tuple[str, str]]:
        """(name, status) of the MLflow runs."""
        with sqlite3.connect(self.folder / "mlflow.db") as connection:
            return sorted(connection.execute("select name, status from runs").fetchall())


def copy_of_repository(folder: Path) -> Project:
    """What the main job needs of the repository, in a new folder."""
    folder.mkdir()
    for name in ("params.yaml", "dvc.yaml", "corrections.parquet", ".dvcignore", ".gitignore"):
        shutil.copy(ROOT / name, folder / name)
    shutil.copytree(ROOT / "src", folder / "src", ignore=shutil.ignore_patterns("__pycache__"))
    return Project(folder)


def reproduced(folder: Path) -> Project:
    """The repository with one teacher, two rounds and few steps, reproduced and committed."""
    made = copy_of_repository(folder)
    params = yaml.safe_load((folder / "params.yaml").read_text())
    del params["supervised"]["labeled_only"]
    del params["rounds"]["student3"]
    params["runs"] = ["teacher", "student1", "student2"]
    params["train"] |= {"steps": 30, "validate_every": 10}
    params["supervised"]["teacher"]["train"]["steps"] = 40
    params["select"]["threshold"] = 0.1
    for entry in params["rounds"].values():
        entry["select"] = {}
    params["hardware"] |= {"threads": 1, "workers": 1, "checkpoint_seconds": 0.2}
    (folder / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    made.run("git", "init", "-q")
    made.run("dvc", "init", "-q")
    made.run("git", "add", "-A")
    made.run("git", "commit", "-q", "-m", "start")
    assert len(made.repro(silent=True)) == 3 + 3 + 2 * 4 + 3
    made.run("git", "add", "-A")
    made.run("git", "commit", "-q", "-m", "first results")
    return made


def in_process(folder: Path, *commands: Sequence[str]) -> str:
    """Run commands of ours in this process, which is quicker than in one each; what they print."""
    from selftrain.cli import results, stages  # noqa: F401, they add their commands to the app
    from selftrain.cli.app import app

    printed = io.StringIO()
    # By its whole name: MLflow remembers databases by their names, and this process has other folders after this one.
    database = {"MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db"}
    with mock.patch.dict(os.environ, database), contextlib.chdir(folder), contextlib.redirect_stdout(printed):
        for command in commands:
            app(list(command), standalone_mode=False)
    return printed.getvalue()


def run_in_process(folder: Path, pipeline: str) -> str:
    """Run a pipeline's stages in this process; what they print."""
    from selftrain.plumbing.dvc_state import stage_commands

    with contextlib.chdir(folder):
        commands = stage_commands(Path("pipelines") / pipeline)
    return in_process(folder, *(shlex.split(command)[1:] for command in commands))
