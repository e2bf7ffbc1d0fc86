"""What trainings do when they, their workers, or the machine's scheduler end."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
import yaml

from tests.processes import living_in, send
from tests.training.project import TRAIN_STUDENT, mlflow_rows, newest_step, write_params, write_project


def start(folder: Path, corpus: Path, steps: int = 5000, **hardware: object) -> "subprocess.Popen[str]":
    """A training in a process group of its own, which has taken a checkpoint."""
    write_project(folder, corpus, steps=steps)
    params = yaml.safe_load((folder / "params.yaml").read_text())
    params["hardware"] |= {"device": "cpu", **hardware}
    write_params(folder, params)
    process = subprocess.Popen(
        [sys.executable, "-m", "selftrain", *TRAIN_STUDENT],
        cwd=folder,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    while newest_step(checkpoints(folder)) < 1:
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.1)
    return process


def checkpoints(folder: Path) -> Path:
    return folder / ".selftrain" / "checkpoints" / "noisy_student" / "student"


@pytest.mark.slow
@pytest.mark.parametrize(("processes", "to"), [(1, "its group"), (2, "its group"), (2, "all of them")])
def test_sigterm_to_all_that_a_training_runs_saves_a_checkpoint(
    digits_corpus: Path, tmp_path: Path, processes: int, to: str
) -> None:
    folder = tmp_path / "p"
    process = start(folder, digits_corpus, workers=2, processes=processes, checkpoint_seconds=4)
    before = newest_step(checkpoints(folder))
    time.sleep(1)
    if to == "its group":
        os.killpg(process.pid, signal.SIGTERM)
    else:  # torchrun's processes have sessions of their own, and Slurm ends them all
        send(signal.SIGTERM, living_in(folder))
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 128 + signal.SIGTERM, errors
    assert newest_step(checkpoints(folder)) > before, "it saved where it was"
    assert mlflow_rows(folder, "select status from runs") == [("KILLED",)]
    assert "Traceback" not in errors, errors
    assert living_in(folder) == []


@pytest.mark.slow
def test_a_worker_that_dies_ends_the_training_in_a_line(digits_corpus: Path, tmp_path: Path) -> None:
    process = start(tmp_path / "p", digits_corpus, workers=2, processes=1)
    (worker, *_) = [pid for pid in living_in(tmp_path / "p") if pid != process.pid]
    os.kill(worker, signal.SIGKILL)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 1
    assert "set `hardware.workers` to fewer or 0" in errors
    assert "Traceback" not in errors
    assert living_in(tmp_path / "p") == []


@pytest.mark.slow
def test_a_container_with_little_shared_memory_is_a_line(digits_corpus: Path, tmp_path: Path) -> None:
    """Docker gives 64 MB; here it is 64 kB, and a batch is more."""
    folder = tmp_path / "p"
    write_project(folder, digits_corpus, steps=20, batch_size=32)
    params = yaml.safe_load((folder / "params.yaml").read_text())
    params["hardware"] |= {"device": "cpu", "workers": 2, "processes": 1}
    write_params(folder, params)
    here = tempfile.gettempdir()  # which may lie in /dev/shm
    little = f"mount --bind {here} /mnt && mount -t tmpfs -o size=64k tmpfs /dev/shm"
    here_again = f"mkdir -p {here} && mount --bind /mnt {here} && cd {folder}"
    train = f"{little} && {here_again} && exec {sys.executable} -m selftrain {' '.join(TRAIN_STUDENT)}"
    ended = subprocess.run(
        ["unshare", "--mount", "--", "sh", "-c", train],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    if ended.stderr.startswith(("unshare:", "mount:")):
        pytest.skip("no right to mount a disk")
    assert ended.returncode == 1
    assert "set `hardware.workers` to fewer or 0, or give a container more by `--shm-size=2g`" in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.slow
def test_workers_end_with_a_training_that_is_killed(digits_corpus: Path, tmp_path: Path) -> None:
    process = start(tmp_path / "p", digits_corpus, workers=2, processes=1)
    assert len(living_in(tmp_path / "p")) >= 3
    os.kill(process.pid, signal.SIGKILL)
    process.communicate(timeout=120)
    deadline = time.monotonic() + 10
    while living_in(tmp_path / "p") and time.monotonic() < deadline:
        time.sleep(0.1)
    assert living_in(tmp_path / "p") == []


def test_a_stage_whose_dvc_is_gone_does_not_begin(tmp_path: Path) -> None:
    """SIGKILL may hit DVC before its stage has asked to end with it."""
    gone = subprocess.run(["sh", "-c", "echo $$"], capture_output=True, text=True, check=True).stdout.strip()
    (tmp_path / ".dvc" / "tmp").mkdir(parents=True)
    stage = [sys.executable, "-m", "selftrain", "code"]
    environment = os.environ | {"DVC_STAGE": "code", "DVC_ROOT": str(tmp_path)}
    for pid, code in ((gone, 128 + signal.SIGTERM), (os.getpid(), 1)):
        locks = {str(tmp_path / "models"): {"write": {"pid": int(pid), "cmd": "dvc repro"}}}
        (tmp_path / ".dvc" / "tmp" / "rwlock").write_text(json.dumps(locks))
        ended = subprocess.run(stage, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert ended.returncode == code
        assert ("params.yaml" in ended.stderr) == (code == 1), "with a living DVC it goes on, and misses its parameters"
