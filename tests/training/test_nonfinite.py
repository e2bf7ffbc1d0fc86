"""A training that diverges ends in one line, and nothing of it is exported."""

import sqlite3
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from selftrain.params.train import TrainConfig
from selftrain.plumbing.errors import UserError
from selftrain.plumbing.hardware import HardwareConfig
from selftrain.training.loop import Window
from selftrain.training.run import Training
from selftrain.training.train import train
from tests.training.conftest import TINY

MACHINE = HardwareConfig(device="cpu", threads=1, processes=1, workers=0, checkpoint_seconds=1e-9)


def run(corpus: Path, out: Path, **changes: Any) -> None:
    config = TrainConfig.model_validate(TINY | {"noise": {}, "steps": 40, "validate_every": 1} | changes)
    train(Training(out.name, "test", config, MACHINE, 0, corpus, out), restart=[])


def test_a_training_that_diverges_names_the_step_and_exports_nothing(
    digits_corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    wild = {"optimizer": "sgd", "learning_rate": 1e30, "warmup": 0, "schedule": "constant"}
    with pytest.raises(UserError, match=r"train wild: the loss of step \d+ is not finite.*train.learning_rate.*1e\+30"):
        run(digits_corpus, tmp_path / "wild", **wild)
    assert not (tmp_path / "wild").exists()
    with sqlite3.connect(tmp_path / "mlflow.db") as connection:
        assert connection.execute("select name, status from runs").fetchall() == [("wild", "FAILED")]
    kept = list((tmp_path / ".selftrain" / "checkpoints" / "test" / "wild").rglob("*.safetensors"))
    assert kept, "what was learned before is not lost"
    for checkpoint in kept:
        floats = [value for value in load_file(checkpoint).values() if value.is_floating_point()]
        assert all(bool(value.isfinite().all()) for value in floats), checkpoint


@pytest.mark.parametrize(
    ("losses", "place"), [([1.0, 2.0], None), ([1.0, float("nan"), float("inf")], 1), ([float("inf")], 0), ([], None)]
)
def test_the_first_step_without_a_finite_loss(losses: list[float], place: int | None) -> None:
    window = Window()
    window.add({"accuracy": torch.tensor(float("nan"))}, 1)
    for loss in losses:
        window.add({"loss": torch.tensor(loss)}, 1)
    assert window.first_nonfinite() == (None if place is None else place + 1)
