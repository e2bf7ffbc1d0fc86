"""`selftrain repro`: a scheduler's SIGTERM, with a real DVC and a real training below it."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from tests.training.project import TRAIN_STUDENT, mlflow_rows, newest_step, write_project

DVC = [sys.executable, "-m", "dvc"]


@pytest.fixture
def project(digits_corpus: Path, tmp_path: Path) -> Path:
    """A folder of DVC's with one stage, a training of minutes, and one after it."""
    folder = tmp_path / "p"
    write_project(folder, digits_corpus, steps=5000)
    train = f"{sys.executable} -m selftrain {' '.join(TRAIN_STUDENT)}"
    stages = {"train": {"cmd": train, "outs": ["models/noisy_student/student"]}, "after": {"cmd": "touch after"}}
    (folder / "dvc.yaml").write_text(json.dumps({"stages": stages}))
    subprocess.run([*DVC, "init", "--no-scm", "--quiet"], cwd=folder, check=True)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("everybody", [False, True])
def test_the_training_saves_before_the_command_ends(project: Path, everybody: bool) -> None:
    command = [sys.executable, "-m", "selftrain", "repro", "train"]
    process = subprocess.Popen(command, cwd=project, start_new_session=True, stderr=subprocess.PIPE, text=True)
    checkpoints = project / ".selftrain" / "checkpoints" / "noisy_student" / "student"
    until = time.monotonic() + 120
    while newest_step(checkpoints) < 1 and time.monotonic() < until:
        time.sleep(0.1)
    before = newest_step(checkpoints)
    below = psutil.Process(process.pid).children(recursive=True)
    (os.killpg if everybody else os.kill)(process.pid, signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM, errors
    assert [each for each in below if each.is_running() and each.status() != psutil.STATUS_ZOMBIE] == []
    assert newest_step(checkpoints) > before >= 1
    assert mlflow_rows(project, "select status from runs") == [("KILLED",)]
    if not everybody:
        locks = json.loads((project / ".dvc" / "tmp" / "rwlock").read_text())
        assert not any(locks.values()), "DVC ended by itself, and freed what it had locked"


def test_what_dvc_says_is_what_the_command_says(project: Path) -> None:
    command = [sys.executable, "-m", "selftrain", "repro"]
    done = subprocess.run([*command, "--quiet", "after"], cwd=project, capture_output=True, text=True)
    assert (done.returncode, (project / "after").exists(), done.stdout) == (0, True, "")
    done = subprocess.run([*command, "nothing"], cwd=project, capture_output=True, text=True)
    assert (
        done.returncode == subprocess.run([*DVC, "repro", "nothing"], cwd=project, capture_output=True).returncode != 0
    )
