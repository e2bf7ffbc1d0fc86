"""Several processes of one training, on one machine and on two, and what becomes of them when one dies."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file
from torch import Tensor

from selftrain.plumbing.hardware import HardwareConfig
from selftrain.training.launch import Launch
from tests.conftest import free_port
from tests.processes import living_in
from tests.training.project import TRAIN_STUDENT, mlflow_rows, newest_step, selftrain, write_params, write_project

CHANGES: dict[str, Any] = {"model": "test_vit", "image_size": 32, "steps": 30, "validate_every": 10, "ema_decay": None}


def project(folder: Path, corpus: Path, hardware: dict[str, Any], **changes: Any) -> Path:
    write_project(folder, corpus, **CHANGES | changes)
    params = yaml.safe_load((folder / "params.yaml").read_text())
    params["hardware"] |= {"device": "cpu", "precision": "fp32", "workers": 0} | hardware
    write_params(folder, params)
    return folder


def weights(folder: Path) -> dict[str, Tensor]:
    return load_file(folder / "models" / "noisy_student" / "student" / "model.safetensors")


@pytest.fixture(scope="module")
def together(digits_corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project that two processes of this machine trained, undisturbed."""
    folder = project(tmp_path_factory.mktemp("launch") / "together", digits_corpus, {"processes": 2})
    done = selftrain(folder, *TRAIN_STUDENT)
    assert done.returncode == 0, done.stderr
    return folder


def ranks_of(folder: Path) -> list[int]:
    """Processes that torchrun started in a folder."""
    found = []
    for pid in living_in(folder):
        environment, command = (Path(f"/proc/{pid}/{name}").read_bytes() for name in ("environ", "cmdline"))
        if b"\0LOCAL_RANK=1" in environment and b"train" in command:
            found.append(pid)
    return found


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="asks /proc")
def test_a_rank_that_dies_costs_what_came_after_the_checkpoint(
    together: Path, digits_corpus: Path, tmp_path: Path
) -> None:
    killed = project(tmp_path / "killed", digits_corpus, {"processes": 2})
    with subprocess.Popen(
        [sys.executable, "-m", "selftrain", *TRAIN_STUDENT], cwd=killed, stderr=subprocess.DEVNULL
    ) as process:
        checkpoints = killed / ".selftrain" / "checkpoints" / "noisy_student" / "student"
        while process.poll() is None and newest_step(checkpoints) < 8:
            time.sleep(0.02)
        (rank, *_) = ranks_of(killed)
        os.kill(rank, signal.SIGKILL)
        assert process.wait(timeout=240) == 0
    one, two = weights(together), weights(killed)
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert mlflow_rows(killed, "select status, name from runs") == [("FINISHED", "student")]
    points = mlflow_rows(killed, "select step from metrics where key = 'loss' order by step")
    assert points == [(step,) for step in range(10, 31, 10)], "every point once"


@pytest.mark.slow
def test_two_machines_train_and_predict_as_two_processes_of_one(
    together: Path, digits_corpus: Path, tmp_path: Path
) -> None:
    assert selftrain(together, "predict", "student").returncode == 0
    several: dict[str, Any] = {
        "engine": "torchrun",
        "processes": 1,
        "nodes": 2,
        "rendezvous": f"127.0.0.1:{free_port()}",
    }
    folder = project(tmp_path / "several", digits_corpus, several)
    # A machine that was killed left its launch behind.
    (folder / ".selftrain").mkdir(exist_ok=True)
    launch = Launch("0" * 32, "2", several["rendezvous"], ["-m", "selftrain", "train", "killed"])
    (folder / ".selftrain" / "launch.json").write_text(json.dumps(asdict(launch)))
    with subprocess.Popen([sys.executable, "-m", "selftrain", "follow"], cwd=folder, stdout=subprocess.PIPE) as other:
        for command in (TRAIN_STUDENT, ("predict", "student")):
            result = selftrain(folder, *command)
            assert result.returncode == 0, result.stderr
        other.send_signal(signal.SIGTERM)
        assert other.stdout is not None
        said = other.stdout.read().decode()
        assert other.wait(timeout=60) == 128 + signal.SIGTERM
    assert said.count("follows") == 2, said
    assert "killed" not in said
    one, two = weights(together), weights(folder)
    assert all(torch.equal(one[name], two[name]) for name in one)
    tables = [
        {
            str(path.relative_to(each)): path.read_bytes()
            for path in sorted((each / "predictions" / "noisy_student" / "student").rglob("*.parquet"))
        }
        for each in (together, folder)
    ]
    assert tables[0] == tables[1]
    assert len(tables[0]) > 3


@pytest.mark.slow
def test_what_the_user_has_to_mend_is_not_tried_again(digits_corpus: Path, tmp_path: Path) -> None:
    folder = project(tmp_path / "p", digits_corpus, {"processes": 2}, learning_rate=1e30)
    result = selftrain(folder, *TRAIN_STUDENT)
    assert result.returncode == 1
    assert 1 <= result.stderr.count("is not finite, so nothing after it can be learned") <= 2, result.stderr
    assert not list((folder / ".selftrain" / "failures").iterdir())


@pytest.mark.parametrize(
    "wrong",
    [
        {"nodes": 2},
        {"rendezvous": "a:1"},
        {"engine": "torchrun", "nodes": "4:x", "rendezvous": "a:1"},
        {"engine": "ray", "nodes": 2, "rendezvous": "a:1"},
        {"engine": "torchrun", "nodes": 2, "rendezvous": "a"},
    ],
)
def test_machines_that_cannot_meet(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"nodes|rendezvous"):
        HardwareConfig.model_validate(wrong)
    assert HardwareConfig(engine="torchrun", nodes="2:4", rendezvous="node0:29400").nodes == "2:4"
