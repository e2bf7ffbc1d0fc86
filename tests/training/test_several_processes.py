"""Whole trainings by several processes."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch
import yaml
from safetensors.torch import load_file

from selftrain.tables.parquet import write_frame
from tests.processes import living_in
from tests.training.project import (
    TEACHING,
    TRAIN_STUDENT,
    mlflow_rows,
    newest_step,
    of_algorithm,
    selftrain,
    write_params,
    write_project,
)


def trained_by(
    processes: int, folder: Path, corpus: Path, fsdp: bool = False, **changes: Any
) -> dict[str, torch.Tensor]:
    """The student's weights, trained in so many processes."""
    write_project(folder, corpus, **changes)
    set_processes(folder, processes, fsdp)
    result = selftrain(folder, *TRAIN_STUDENT)
    assert result.returncode == 0, result.stderr
    return load_file(folder / "models" / "noisy_student" / "student" / "model.safetensors")


def set_processes(folder: Path, processes: int, fsdp: bool = False) -> None:
    params = yaml.safe_load((folder / "params.yaml").read_text())
    params["hardware"] |= {"processes": processes, "device": "cpu", "precision": "fp32", "fsdp": fsdp}
    write_params(folder, params)


@pytest.mark.slow
@pytest.mark.parametrize("algorithm", ["noisy_student", *TEACHING])
def test_two_processes_end_like_one(digits_corpus: Path, tmp_path: Path, algorithm: str) -> None:
    # A network without BatchNorm, whose statistics are each process's own, and without random noise in the network.
    changes = {
        "model": "test_vit",
        "image_size": 32,
        "steps": 6,
        "validate_every": 3,
        "noise": {"dropout": 0.0},
        "ema_decay": None,
        "calibration": "validation",
    }
    one, two = (
        trained_by(count, tmp_path / str(count), digits_corpus, **changes, **of_algorithm(algorithm))
        for count in (1, 2)
    )
    for key in one:
        torch.testing.assert_close(one[key], two[key], atol=2e-4, rtol=1e-3)
    assert mlflow_rows(tmp_path / "2", "select status from runs") == [("FINISHED",)]


@pytest.mark.slow
def test_a_process_without_a_validation_image_takes_part(digits_corpus: Path, tmp_path: Path) -> None:
    corpus = tmp_path / "corpus"
    shutil.copytree(digits_corpus, corpus)
    manifest = next((corpus / "validation" / "manifest").iterdir())
    write_frame(pl.read_parquet(manifest).head(1), manifest)
    changes = {"steps": 2, "validate_every": 1, "calibration": "validation"}
    trained_by(2, tmp_path / "project", corpus, **changes)


@pytest.mark.slow
def test_two_processes_with_batches_in_parts_end_like_one_with_whole_ones(digits_corpus: Path, tmp_path: Path) -> None:
    # A network without BatchNorm, and without random noise in it.
    changes = {"model": "test_vit", "image_size": 32, "steps": 6, "validate_every": 3, "noise": {"dropout": 0.0}}
    whole, parted = (
        trained_by(count, tmp_path / str(count), digits_corpus, **changes, grad_accum_steps=parts)
        for count, parts in ((1, 1), (2, 4))
    )
    for key in whole:
        torch.testing.assert_close(whole[key], parted[key], atol=2e-4, rtol=1e-3)


@pytest.mark.slow
def test_two_processes_that_share_out_the_weights_end_like_one(digits_corpus: Path, tmp_path: Path) -> None:
    changes = {"model": "test_vit", "image_size": 32, "steps": 6, "validate_every": 3, "noise": {"dropout": 0.0}}
    whole = trained_by(1, tmp_path / "1", digits_corpus, **changes)
    shares = trained_by(2, tmp_path / "2", digits_corpus, fsdp=True, grad_accum_steps=2, **changes)
    for key in whole:
        torch.testing.assert_close(whole[key], shares[key], atol=2e-4, rtol=1e-3)
    assert mlflow_rows(tmp_path / "2", "select status from runs") == [("FINISHED",)]
    params = yaml.safe_load((tmp_path / "2" / "params.yaml").read_text())
    params["rounds"]["student"]["train"] |= {
        "algorithm": {"name": "supervised"},
        "unlabeled_ratio": 0,
        "optimizer": "lamb",
    }
    write_params(tmp_path / "2", params)
    refused = selftrain(tmp_path / "2", *TRAIN_STUDENT)
    assert refused.returncode == 1
    assert "train.optimizer: lamb does not work on weights that are shared out" in refused.stderr


@pytest.mark.slow
@pytest.mark.parametrize(("before", "fsdp", "after"), [(2, True, 1), (1, False, 2)])
def test_another_number_of_processes_goes_on_from_a_checkpoint(
    digits_corpus: Path, tmp_path: Path, before: int, fsdp: bool, after: int
) -> None:
    changes = {"model": "test_vit", "image_size": 32, "steps": 30, "validate_every": 10, "noise": {"dropout": 0.0}}
    whole = trained_by(1, tmp_path / "whole", digits_corpus, **changes)
    killed = tmp_path / "killed"
    write_project(killed, digits_corpus, **changes)
    set_processes(killed, before, fsdp)
    checkpoints = killed / ".selftrain" / "checkpoints" / "noisy_student" / "student"
    with subprocess.Popen(
        [sys.executable, "-m", "selftrain", *TRAIN_STUDENT], cwd=killed, stderr=subprocess.DEVNULL
    ) as process:
        while process.poll() is None and newest_step(checkpoints) < 5:
            time.sleep(0.02)
        process.kill()
    assert 5 <= newest_step(checkpoints) < 30
    set_processes(killed, after)
    ended = selftrain(killed, *TRAIN_STUDENT)
    assert ended.returncode == 0, ended.stderr
    found = load_file(killed / "models" / "noisy_student" / "student" / "model.safetensors")
    for key in whole:
        torch.testing.assert_close(whole[key], found[key], atol=1e-3, rtol=1e-2)
    assert mlflow_rows(killed, "select status, name from runs") == [("FINISHED", "student")], "a new run"
    points = mlflow_rows(killed, "select step from metrics where key = 'loss' order by step")
    assert points == [(10,), (20,), (30,)]


@pytest.mark.slow
def test_a_killed_training_of_several_processes_leaves_none_behind(digits_corpus: Path, tmp_path: Path) -> None:
    folder = tmp_path / "p"
    write_project(folder, digits_corpus, steps=5000)
    params = yaml.safe_load((folder / "params.yaml").read_text())
    params["hardware"] |= {"processes": 2, "device": "cpu"}
    write_params(folder, params)
    process = subprocess.Popen(
        [sys.executable, "-m", "selftrain", *TRAIN_STUDENT], cwd=folder, stderr=subprocess.DEVNULL
    )
    while newest_step(folder / ".selftrain" / "checkpoints" / "noisy_student" / "student") < 1:
        assert process.poll() is None
        time.sleep(0.1)
    assert len(living_in(folder)) >= 3, "this one, and two that train"
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    deadline = time.monotonic() + 60
    while living_in(folder) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert living_in(folder) == []
