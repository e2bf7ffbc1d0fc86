"""A small corpus, a model, and predictions of it."""

import os
from pathlib import Path

import pytest
import torch

from selftrain.corpus.ingest import ingest
from selftrain.networks.export import export_model
from selftrain.networks.models import create_model
from selftrain.params.predict import PredictConfig
from selftrain.plumbing.hardware import HardwareConfig
from selftrain.prediction.predict import predict

HARDWARE = HardwareConfig(device="cpu", threads=1, workers=0, predict_batch_size=4)
CLASSES = ["cat", "dog", "owl"]


@pytest.fixture
def project(ingest_config, photos: Path, tmp_path: Path) -> Path:  # type: ignore[no-untyped-def]
    ingest(ingest_config(), 0, tmp_path / "corpus")
    make_model(tmp_path / "model", seed=0)
    return tmp_path


def make_model(folder: Path, seed: int, classes: list[str] = CLASSES) -> None:
    torch.manual_seed(seed)
    model = create_model("test_resnet", len(classes), 32, stochastic_depth=0.3)
    export_model(model, folder, classes=classes, image_size=32, crop_fraction=1.0)


def run(project: Path, *splits: str) -> dict[str, tuple[int, int]]:
    """Predict; returns (inode, time of change) of each part, which tell whether it was written anew."""
    predict_noised(project, (), *splits)
    files = sorted((project / "out").rglob("*.parquet"))
    return {str(path.relative_to(project / "out")): (os.stat(path).st_ino, os.stat(path).st_mtime_ns) for path in files}


def predict_noised(project: Path, noise: tuple[str, ...], *splits: str, seed: int = 0, out: str = "out") -> None:
    config = PredictConfig.model_validate({"noise": noise})
    wanted = list(splits or ["unlabeled", "test"])
    predict(project / "model", project / "corpus", wanted, project / out, config, seed, HARDWARE)
