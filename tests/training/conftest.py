from pathlib import Path
from typing import Any

import pytest

from selftrain.corpus.ingest import ingest
from selftrain.params.train import TrainConfig
from tests.conftest import write_images

TINY: dict[str, Any] = {
    "algorithm": {"name": "supervised"},
    "model": "test_resnet",
    "image_size": 32,
    "batch_size": 8,
    "learning_rate": 0.003,
    "steps": 4,
    "validate_every": 2,
    "noise": {"flip": 0.5, "dropout": 0.1},
}


@pytest.fixture
def tiny() -> Any:
    """Make a small training configuration; keyword arguments replace parts of it."""
    return lambda **changes: TrainConfig.model_validate(TINY | changes)


@pytest.fixture
def photo_corpus(ingest_config: Any, photos: Path, tmp_path: Path) -> Path:
    """``photos`` ingested: 12 labeled, 12 validation, 12 test, 30 unlabeled images of three classes."""
    write_images(photos / "pool" / "more", 21, 70)
    ingest(ingest_config(), 0, tmp_path / "corpus")
    return tmp_path / "corpus"
