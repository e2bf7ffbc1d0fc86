"""Long predictions are compiled, and label as they would otherwise."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch._dynamo.utils import counters

from selftrain.networks.export import export_model
from selftrain.networks.models import create_model
from selftrain.params.predict import PredictConfig
from selftrain.plumbing.hardware import HardwareConfig
from selftrain.prediction import compiled
from selftrain.prediction.predict import predict
from selftrain.tables.embeddings import embeddings_folder, iter_embeddings
from selftrain.tables.predictions import iter_predictions

CLASSES = [str(digit) for digit in range(10)]
MACHINE = HardwareConfig(device="cpu", threads=1, workers=0, precision="fp32", predict_batch_size=32)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    network = create_model("test_resnet", 10, 32)
    export_model(network, tmp_path / "model", classes=CLASSES, image_size=32, crop_fraction=1.0)
    return tmp_path / "model"


def test_labels_are_the_same(
    model: Path,
    digits_corpus: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """50 images in batches of 32: the last one is filled up."""
    config = PredictConfig(embeddings=True)
    predict(model, digits_corpus, ["test"], tmp_path / "plain", config, 0, MACHINE)
    assert "compiled" not in capsys.readouterr().out
    monkeypatch.setattr(compiled, "PAYS", 0.0)
    torch._dynamo.reset()
    counters.clear()
    predict(model, digits_corpus, ["test"], tmp_path / "compiled", config, 0, MACHINE)
    assert "compiled; 40 of 40 validation images keep their labels" in capsys.readouterr().out
    assert counters["stats"]["unique_graphs"] == 1, "what labels is what was compiled, with weights as constants"
    plain, quick = (
        np.concatenate([part.log_probs for _, part in iter_predictions(tmp_path / name / "test")])
        for name in ("plain", "compiled")
    )
    assert plain.shape == (50, 10)
    assert np.abs(plain.astype(float) - quick).max() < 0.01
    vectors = [
        np.concatenate([part.vectors for part in iter_embeddings(embeddings_folder(tmp_path / name, "test"))])
        for name in ("plain", "compiled")
    ]
    assert np.abs(vectors[0].astype(float) - vectors[1]).max() < 0.01


def test_without_a_compiler_it_goes_on(model: Path, digits_corpus: Path, tmp_path: Path) -> None:
    program = f"""
from pathlib import Path
from selftrain.params.predict import PredictConfig
from selftrain.plumbing.hardware import HardwareConfig
from selftrain.prediction import compiled
from selftrain.prediction.predict import predict
compiled.PAYS = 0.0
machine = HardwareConfig(device="cpu", threads=1, workers=0, precision="fp32")
predict(Path({str(model)!r}), Path({str(digits_corpus)!r}), ["test"], Path("out"), PredictConfig(), 0, machine)
"""
    nowhere = {"CXX": "/nowhere/g++", "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "cache")}
    ended = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env=os.environ | nowhere,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    assert "the network is not compiled" in ended.stdout
    assert len(list((tmp_path / "out" / "test").glob("part-*.parquet"))) >= 1
