"""Whole trainings, in real processes."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

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


@pytest.mark.slow
@pytest.mark.parametrize("algorithm", ["noisy_student", *TEACHING])
def test_killed_trainings_end_with_the_same_weights_and_one_mlflow_run(
    digits_corpus: Path, tmp_path: Path, algorithm: str
) -> None:
    write_project(tmp_path / "whole", digits_corpus, **of_algorithm(algorithm))
    write_project(tmp_path / "killed", digits_corpus, **of_algorithm(algorithm))
    whole = selftrain(tmp_path / "whole", *TRAIN_STUDENT)
    assert whole.returncode == 0, whole.stderr

    checkpoints = tmp_path / "killed" / ".selftrain" / "checkpoints" / "noisy_student" / "student"
    steps = []
    # The state of each algorithm is compared in `test_contract`; here a resumed training is killed once more.
    for wanted in (5, 45) if algorithm == "noisy_student" else (25,):
        process = subprocess.Popen(
            [sys.executable, "-m", "selftrain", *TRAIN_STUDENT], cwd=tmp_path / "killed", stderr=subprocess.DEVNULL
        )
        while process.poll() is None and newest_step(checkpoints) < wanted:
            time.sleep(0.02)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        steps.append(newest_step(checkpoints))
    assert steps == sorted(steps)
    assert 5 <= steps[0] <= steps[-1] < 60
    ended = selftrain(tmp_path / "killed", *TRAIN_STUDENT)
    assert ended.returncode == 0, ended.stderr

    weights = [
        load_file(tmp_path / name / "models" / "noisy_student" / "student" / "model.safetensors")
        for name in ("whole", "killed")
    ]
    assert weights[0].keys() == weights[1].keys()
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])
    assert mlflow_rows(tmp_path / "killed", "select status, name from runs") == [("FINISHED", "student")]
    points = mlflow_rows(tmp_path / "killed", "select step from metrics where key = 'loss' order by step")
    assert points == [(step,) for step in range(10, 61, 10)], "every point once"
    if algorithm == "meta_pseudo_labels":
        query = "select distinct key from metrics where key like '%teacher%' or key like '%feedback%'"
        curves = {key for (key,) in mlflow_rows(tmp_path / "killed", query)}
        assert {"teacher_validation_accuracy", "teacher_learning_rate", "teacher_labeled_loss", "feedback"} <= curves
    run = json.loads((tmp_path / "killed" / "models" / "noisy_student" / "student" / "run.json").read_text())
    assert run["peak_memory_mib"] > 50
    assert mlflow_rows(tmp_path / "killed", "select run_uuid from runs") == [(run["mlflow_run_id"],)]


@pytest.mark.slow
def test_sigterm_saves_and_a_failure_is_marked(digits_corpus: Path, tmp_path: Path) -> None:
    folder = tmp_path / "p"
    write_project(folder, digits_corpus, steps=2000)
    process = subprocess.Popen(
        [sys.executable, "-m", "selftrain", *TRAIN_STUDENT], cwd=folder, stderr=subprocess.DEVNULL
    )
    checkpoints = folder / ".selftrain" / "checkpoints" / "noisy_student" / "student"
    while newest_step(checkpoints) < 3:
        time.sleep(0.05)
    process.terminate()
    assert process.wait(timeout=120) == 128 + signal.SIGTERM
    assert mlflow_rows(folder, "select status from runs") == [("KILLED",)]
    # A shard that is damaged after ingest fails the run, with the shard's name and without a traceback.
    params = yaml.safe_load((folder / "params.yaml").read_text())
    params["train"]["image_size"] = 24
    write_params(folder, params)
    (folder / "data" / "corpus").unlink()
    subprocess.run(["cp", "-r", str(digits_corpus), str(folder / "data" / "corpus")], check=True)
    tar = next((folder / "data" / "corpus" / "labeled").glob("*.tar"))
    tar.write_bytes(tar.read_bytes().replace(b"\x89PNG", b"XXXX"))
    failed = selftrain(folder, *TRAIN_STUDENT)
    assert failed.returncode == 1
    assert "shard-00000000.tar: the image at byte" in failed.stderr
    assert "Traceback" not in failed.stderr
    assert sorted(mlflow_rows(folder, "select status from runs")) == [("FAILED",), ("KILLED",)]


def test_a_training_that_died_while_it_wrote_its_result_goes_on(digits_corpus: Path, tmp_path: Path) -> None:
    folder = tmp_path / "project"
    write_project(folder, digits_corpus)
    first = selftrain(folder, *TRAIN_STUDENT)
    assert first.returncode == 0, first.stderr
    model = folder / "models" / "noisy_student" / "student"
    weights = (model / "model.safetensors").read_bytes()
    result = next((folder / ".selftrain" / "checkpoints").rglob("result"))
    for made in (result, model):
        made.rename(made.with_name(f".tmp-{made.name}"))
    (model.parent / ".tmp-student" / "config.json").unlink()
    again = selftrain(folder, *TRAIN_STUDENT)
    assert again.returncode == 0, again.stderr
    assert (model / "model.safetensors").read_bytes() == weights
    assert not list(folder.rglob(".tmp-*"))


TWO_PHASES = {
    "algorithm": {"name": "pretraining", "labels": "hard"},
    "unlabeled_ratio": 1,
    "init": "teacher",
    "steps": 30,
    "validate_every": 10,
    "then": {
        "resolution_fix": {
            "algorithm": {"name": "supervised"}, "epochs": 12, "image_size": 48, "frozen": 1, "noise": {"on_labeled": []},
        }
    },
}  # fmt: skip


@pytest.mark.slow
def test_phases_start_where_the_last_ended_and_survive_a_kill(digits_corpus: Path, tmp_path: Path) -> None:
    write_project(tmp_path / "whole", digits_corpus, **TWO_PHASES)
    teacher = selftrain(tmp_path / "whole", "train", "teacher")
    assert teacher.returncode == 0, teacher.stderr
    shutil.copytree(tmp_path / "whole", tmp_path / "killed", symlinks=True)
    command = TRAIN_STUDENT
    whole = selftrain(tmp_path / "whole", *command)
    assert whole.returncode == 0, whole.stderr
    second = tmp_path / "killed" / ".selftrain" / "checkpoints" / "noisy_student" / "student"
    process = subprocess.Popen(
        [sys.executable, "-m", "selftrain", *command], cwd=tmp_path / "killed", stderr=subprocess.DEVNULL
    )
    while process.poll() is None and not list(second.glob("*/resolution_fix/step-*.safetensors")):
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    ended = selftrain(tmp_path / "killed", *command)
    assert ended.returncode == 0, ended.stderr
    models = [tmp_path / name / "models" / "noisy_student" / "student" for name in ("whole", "killed")]
    assert models[0].joinpath("model.safetensors").read_bytes() == models[1].joinpath("model.safetensors").read_bytes()
    record = json.loads((models[0] / "run.json").read_text())
    assert [phase["name"] for phase in record["phases"]] == ["main", "resolution_fix"]
    assert record["phases"][1]["planned_steps"] == 45, "12 epochs of 30 images in batches of 8"
    assert record["steps"] == 75
    assert json.loads((models[0] / "config.json").read_text())["pretrained_cfg"]["input_size"] == [3, 48, 48]
    # Only the classifier moved after the first phase.
    before = load_file(
        next((tmp_path / "whole").glob(".selftrain/checkpoints/noisy_student/student/*/main/result/model.safetensors"))
    )
    after = load_file(models[0] / "model.safetensors")
    assert {key for key in after if not torch.equal(after[key], before[key])} == {"fc.weight", "fc.bias"}
    earlier = models[0] / "phases" / "main"
    assert load_file(earlier / "model.safetensors")["fc.weight"].equal(before["fc.weight"])
    assert json.loads((earlier / "config.json").read_text())["pretrained_cfg"]["input_size"] == [3, 32, 32]
    for name in ("whole", "killed"):
        points = mlflow_rows(
            tmp_path / name, "select key, step from metrics join runs using (run_uuid) where name = 'student'"
        )
        steps = sorted(step for key, step in points if key == "validation_accuracy")
        assert steps == [10, 20, 30, 40, 50, 60, 70, 75], "one curve over both phases, every point once"
        assert sorted(step for key, step in points if key == "resolution_fix/validation_accuracy") == steps[3:]


@pytest.mark.slow
def test_training_stops_when_patience_ends_and_a_small_student_is_a_warning(
    digits_corpus: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "p"
    changes = {
        "model": "test_efficientnet",
        "steps": 500,
        "validate_every": 5,
        "patience": 2,
        "learning_rate": 1e-8,
        "ema_decay": None,
    }
    write_project(folder, digits_corpus, **changes)
    teacher = selftrain(folder, "train", "teacher")
    assert teacher.returncode == 0, teacher.stderr
    for _ in range(2):
        ended = selftrain(folder, *TRAIN_STUDENT)
        assert ended.returncode == 0, ended.stderr
        assert "is smaller than its teacher (373,658)" in ended.stdout
        (phase,) = json.loads((folder / "models" / "noisy_student" / "student" / "run.json").read_text())["phases"]
        assert phase["steps"] == phase["best_step"] + 10 < 500
