"""What a rehearsal works on: a tiny corpus, folders of corrupted images, models from elsewhere."""

from pathlib import Path

import numpy as np
from PIL import Image

from selftrain.corpus.ingest import ingest
from selftrain.evaluation.robustness.corruptions import CORRUPTIONS, SEVERITIES
from selftrain.networks.export import export_model
from selftrain.networks.models import create_model
from selftrain.params.ingest import IngestConfig
from selftrain.rehearsal.tiny import LARGEST, MODEL

CLASSES = ("cat", "dog", "owl")
COUNTS = {"labeled": 6, "validation": 4, "test": 4}
"""Images a class."""
POOL = 18


def write_corpus(corpus: Path, images: Path) -> None:
    """Made-up images of three classes, which differ in colour, brought into a corpus."""
    rng = np.random.default_rng(0)
    for split, count in COUNTS.items():
        for name in CLASSES:
            write_images(images / split / name, CLASSES.index(name), count, rng)
    for label in range(len(CLASSES)):
        write_images(images / "unlabeled", label, POOL // len(CLASSES), rng)
    splits = {split: {"images": split} for split in (*COUNTS, "unlabeled")}
    ingest(IngestConfig.model_validate({"root": str(images), **splits}), 0, corpus)


def write_images(folder: Path, label: int, count: int, rng: np.random.Generator) -> None:
    """``count`` images of noise on a class's colour."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        pixels = rng.normal(np.roll([190, 90, 60], label), 40, (LARGEST, LARGEST, 3))
        Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(folder / f"{label}-{number}.png")


def write_labeled_folder(folder: Path) -> None:
    """One image a class, as in ImageNet-A's layout."""
    rng = np.random.default_rng(1)
    for label, name in enumerate(CLASSES):
        write_images(folder / name, label, 1, rng)


def write_corrupted_folder(folder: Path) -> None:
    """One image of two classes for each corruption and severity, in ImageNet-C's layout."""
    rng = np.random.default_rng(2)
    for corruption in CORRUPTIONS:
        for severity in SEVERITIES:
            for label, name in enumerate(CLASSES[:2]):
                write_images(folder / corruption / str(severity) / name, label, 1, rng)


def write_model(folder: Path, image_size: int) -> None:
    """An untrained model folder of these classes."""
    model = create_model(MODEL, len(CLASSES), image_size)
    export_model(model, folder, classes=list(CLASSES), image_size=image_size, crop_fraction=1.0)
