import io
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from selftrain.corpus.config import DigitsConfig, IngestConfig

# Before anything imports MLflow, DVC or FiftyOne.
os.environ.update(
    DVC_NO_ANALYTICS="1",
    FIFTYONE_DO_NOT_TRACK="true",
    MLFLOW_DISABLE_TELEMETRY="true",
    OMP_WAIT_POLICY="PASSIVE",
)
os.environ.pop("MLFLOW_TRACKING_URI", None)

ROOT = Path(__file__).parent.parent

SMALL_DIGITS = DigitsConfig(labels_per_class=3, validation_per_class=4, test_per_class=5, out_of_domain=20)


def image_bytes(seed: int = 0, size: tuple[int, int] = (12, 10), image_format: str = "PNG", mode: str = "RGB") -> bytes:
    """A random image as a file's bytes."""
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(file, image_format)
    return file.getvalue()


def write_images(folder: Path, count: int, seed: int = 0) -> list[Path]:
    """Write random PNGs; returns their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{seed}-{number:03d}.png" for number in range(count)]
    for number, path in enumerate(paths):
        path.write_bytes(image_bytes(seed * 1000 + number))
    return paths


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder of images as a user has it: three classes in every labeled split, and a pool."""
    root = tmp_path / "photos"
    for split, seed in (("labeled", 1), ("validation", 2), ("test", 3)):
        for offset, name in enumerate(("cat", "dog", "owl")):
            write_images(root / split / name, 4, seed * 10 + offset)
    write_images(root / "pool", 9, 50)
    return root


@pytest.fixture
def ingest_config(photos: Path) -> Callable[..., IngestConfig]:
    """Make an ingest configuration for ``photos``; keyword arguments replace parts of it."""

    def make(**changes: object) -> IngestConfig:
        values: dict[str, object] = {
            "root": str(photos),
            "labeled": {"images": "labeled"},
            "unlabeled": {"images": "pool"},
            "validation": {"images": "validation"},
            "test": {"images": "test"},
            "images_per_shard": 5,
            "max_quarantined": 0.5,
        }
        return IngestConfig.model_validate(values | changes)

    return make


@pytest.fixture(scope="session")
def digits_corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The ingested digits, read only: 30 labeled, 40 validation, 50 test, the rest and 20 crops unlabeled."""
    from selftrain.corpus.digits import write_digits
    from selftrain.corpus.ingest import ingest

    folder = tmp_path_factory.mktemp("digits")
    write_digits(SMALL_DIGITS, 0, folder / "images")
    splits = {split: {"images": split} for split in ("labeled", "unlabeled", "validation", "test")}
    config = {"root": str(folder / "images"), "truth": "truth.csv", "images_per_shard": 400, **splits}
    ingest(IngestConfig.model_validate(config), 0, folder / "corpus")
    return folder / "corpus"
