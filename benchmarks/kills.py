"""SIGKILL at random moments, then on to the end: is the result that of a training that nobody killed?

    python benchmarks/kills.py              # 200 kills, an hour on one core
    python benchmarks/kills.py --kills 20

A clone of this repository, as committed, trains a small student by one process and by two, and reproduces a small
pipeline by ``dvc repro``. Half of the kills fall into the first four seconds, where imports and DVC's own work are, the
others anywhere. A chain is some kills and then the command to its end. Counted are chains whose end was not the same,
bit by bit, and processes that lived on for ten seconds.
"""

import argparse
import hashlib
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import psutil
from ruamel.yaml import YAML

START_WINDOW = 4.0
"""Seconds."""
KILLS_A_CHAIN = 5
STUDENT = ("train", "student1")


@dataclass
class Series:
    """One command, how its work is forgotten, and what it ends with."""

    name: str
    command: list[str]
    forget: Callable[[], None]
    result: Callable[[], str]
    share: float
    """Of all kills."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    draw = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as scratch:
        clone = Path(scratch, "clone")
        all_series = make_series(clone)
        print("| series | kills | in the start window | ended otherwise | left behind |\n| --- |" + " ---: |" * 4)
        wrong = sum(run(series, clone, round(series.share * options.kills), draw) for series in all_series)
    raise SystemExit(1 if wrong else 0)


def run(series: Series, clone: Path, kills: int, draw: random.Random) -> int:
    """Kill a series' command so often; returns how often something was wrong."""
    series.forget()
    began = time.monotonic()
    end(series, clone)
    whole, right = time.monotonic() - began, series.result()
    done = early = otherwise = left = 0
    while done < kills:
        series.forget()
        for _ in range(min(KILLS_A_CHAIN, kills - done)):
            in_start = draw.random() < 0.5
            moment = draw.uniform(0, START_WINDOW if in_start else whole)
            left += killed_after(series, clone, moment)
            done, early = done + 1, early + in_start
        end(series, clone)
        otherwise += series.result() != right
        print(f"\r{series.name}: {done} kills", end="", file=sys.stderr, flush=True)
    print(f"\r| {series.name} | {done} | {early} | {otherwise} | {left} |", flush=True)
    return otherwise + left


def killed_after(series: Series, clone: Path, seconds: float) -> int:
    """Start the command and kill its main process; returns how many processes were alive ten seconds later."""
    process = start(series, clone)
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    deadline = time.monotonic() + 10
    while (living := members(clone)) and time.monotonic() < deadline:
        time.sleep(0.05)
    for pid in living:
        os.kill(pid, signal.SIGKILL)
    return len(living)


def end(series: Series, clone: Path) -> None:
    """Run the command to its end."""
    process = start(series, clone)
    _, errors = process.communicate()
    if process.returncode:
        raise SystemExit(f"{series.name} failed:\n{errors}")


def start(series: Series, clone: Path) -> "subprocess.Popen[str]":
    """The command in a session of its own."""
    environment = os.environ | {"PYTHONPATH": str(clone / "src"), "DVC_NO_ANALYTICS": "1"}
    return subprocess.Popen(
        series.command,
        cwd=clone,
        env=environment | {"MLFLOW_TRACKING_URI": f"sqlite:///{clone}/mlflow.db"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def members(clone: Path) -> list[int]:
    """Living processes that work in a clone: torchrun's have sessions of their own."""
    every = psutil.process_iter(["cwd", "status"])
    here = [process for process in every if process.info["cwd"] == str(clone)]
    return [process.pid for process in here if process.info["status"] != psutil.STATUS_ZOMBIE]


def make_series(clone: Path) -> list[Series]:
    """The clone with a small pipeline, run once, and what is killed in it."""
    subprocess.run(["git", "clone", "--quiet", ".", str(clone)], check=True)
    yaml = YAML()
    params = yaml.load(clone / "params.yaml")
    params["train"] |= {"steps": 60, "validate_every": 20}
    params["supervised"]["teacher"]["train"]["steps"] = 40
    params["rounds"]["student1"]["select"]["threshold"] = 0.2
    params["rounds"] = {"student1": params["rounds"]["student1"]}
    params["runs"] = ["teacher", "labeled_only", "student1"]
    params["hardware"] |= {"checkpoint_seconds": 0.3, "threads": 1, "workers": 1, "device": "cpu"}
    yaml.dump(params, clone / "params.yaml")
    repro = Series(
        "dvc repro",
        ["dvc", "repro", "--quiet"],
        lambda: forget_outputs(clone),
        lambda: digest([*models(clone), *sorted((clone / "selections").rglob("*.parquet"))]),
        0.2,
    )
    end(repro, clone)
    trainings = [
        Series(
            f"training, {processes} process{'es' * (processes > 1)}",
            [sys.executable, "-m", "selftrain", *STUDENT],
            partial(forget_student, clone, processes),
            lambda: digest([clone / "models" / "noisy_student" / "student1" / "model.safetensors"]),
            0.4,
        )
        for processes in (1, 2)
    ]
    return [*trainings, repro]


def models(clone: Path) -> list[Path]:
    return sorted((clone / "models").rglob("model.safetensors"))


def forget_outputs(clone: Path) -> None:
    """As if nothing had been made; DVC's cache and memory of runs too."""
    for name in ("models", "predictions", "selections", "evaluation", "review", "reports", "data", ".selftrain"):
        shutil.rmtree(clone / name, ignore_errors=True)
    for name in ("cache", "tmp"):
        shutil.rmtree(clone / ".dvc" / name, ignore_errors=True)
    (clone / "dvc.lock").unlink(missing_ok=True)


def forget_student(clone: Path, processes: int) -> None:
    """As if the student had not been trained; it is going to be by so many processes."""
    yaml = YAML()
    params = yaml.load(clone / "params.yaml")
    params["hardware"]["processes"] = processes
    yaml.dump(params, clone / "params.yaml")
    shutil.rmtree(clone / "models" / "noisy_student" / "student1", ignore_errors=True)
    shutil.rmtree(clone / ".selftrain" / "checkpoints" / "noisy_student" / "student1", ignore_errors=True)


def digest(paths: list[Path]) -> str:
    """Of what the files hold."""
    return hashlib.sha256(b"".join(hashlib.sha256(path.read_bytes()).digest() for path in paths)).hexdigest()


if __name__ == "__main__":
    main()
