"""The features of photographs, for benchmarks of what is fitted to them."""

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t

from selftrain.corpus.ingest import ingest
from selftrain.images.index import load_index
from selftrain.networks.models import create_model
from selftrain.params.ingest import IngestConfig
from selftrain.params.train import TrainConfig
from selftrain.plumbing.hardware import HardwareConfig, resolve
from selftrain.training.head import features_of

MODEL, SIZE = "tf_efficientnet_lite0", 224

Split = tuple[NDArray[np.float32], NDArray[np.int32]]
"""Features (N, D) and labels (N,)."""


def features(images: Path, cache: Path | None = None) -> tuple[Split, Split]:
    """Those of ``train`` and of ``test``, folders with a folder of images a class; ``cache`` is a file to keep them in.

    The network is EfficientNet-Lite0 with ImageNet weights (`selftrain[weights]`) at 224 pixels.
    """
    if cache is not None and cache.exists():
        kept = np.load(cache)
        return (kept["train"], kept["train_labels"]), (kept["test"], kept["test_labels"])
    with tempfile.TemporaryDirectory() as scratch:
        splits = {"labeled": "train", "unlabeled": "test", "validation": "test", "test": "test"}
        config = {"root": str(images.resolve()), "near_duplicates": False}
        config |= {split: {"images": folder} for split, folder in splits.items()}
        ingest(IngestConfig.model_validate(config), 0, Path(scratch) / "corpus")
        training = TrainConfig.model_validate(
            {"algorithm": {"name": "linear_probe"}, "model": MODEL, "image_size": SIZE, "batch_size": 1, "steps": 1,
             "learning_rate": 1, "crop_fraction": 0.95}
        )  # fmt: skip
        network = create_model(MODEL, 1000, SIZE, weights="package")
        found = []
        for split in ("labeled", "test"):
            index = load_index(Path(scratch) / "corpus" / split)
            vectors = features_of(network, index, training, resolve(HardwareConfig(device="cpu")))
            found.append((vectors, index.labels))
    train, test = found
    if cache is not None:
        np.savez(cache, train=train[0], train_labels=train[1], test=test[0], test_labels=test[1])
    return train, test


def interval(values: NDArray[np.float64], signed: bool = True) -> str:
    """Mean ± half of Student's 95% interval."""
    half = t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / len(values) ** 0.5
    return f"{values.mean():{'+' if signed else ''}.1f} ± {half:.1f}"


def cut(
    labels: NDArray[np.int32], per_class: int, rng: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(places of so many labeled images a class, drawn; places of the others, the pool)."""
    classes = int(labels.max()) + 1
    labeled = np.concatenate([rng.permutation(np.flatnonzero(labels == c))[:per_class] for c in range(classes)])
    return labeled, np.setdiff1d(np.arange(len(labels)), labeled)


def lay_out(
    images: Path, per_class: int, seed: int, out: Path
) -> tuple[list[Path], NDArray[np.int64], NDArray[np.int64]]:
    """Links to ``train``'s files: ``out/labeled``, by class, and ``out/pool``, flat.

    Returns the files in the order in which `features` has them, and the places of both as `cut`. A link is named by its
    place.
    """
    files = sorted((images / "train").glob("*/*"))
    labels: NDArray[np.int32] = np.unique([path.parent.name for path in files], return_inverse=True)[1].astype(np.int32)
    labeled, pool = cut(labels, per_class, np.random.default_rng(seed))
    for split, places in (("labeled", labeled), ("pool", pool)):
        shutil.rmtree(out / split, ignore_errors=True)
        for place in places:
            path = files[place]
            link = out / split / (path.parent.name if split == "labeled" else "") / f"{place}{path.suffix}"
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(path)
    return files, labeled, pool


def over_seeds(seeds: int, one_seed: Callable[[int], dict[str, list[float]]]) -> dict[str, NDArray[np.float64]]:
    """What ``one_seed`` finds, by name: (seeds, figures)."""
    found = [one_seed(seed) for seed in range(seeds)]
    return {name: np.array([of_seed[name] for of_seed in found]) for name in found[0]}
