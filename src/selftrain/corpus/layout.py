"""What the sources say before an image is read: the classes, folders without images, splits that cannot be cut."""

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from selftrain.corpus.source_image import SourceImage
from selftrain.corpus.sources import check_folders, class_folders, find_images
from selftrain.corpus.splits import cut
from selftrain.params.ingest import IngestConfig, Source, is_shards
from selftrain.plumbing.errors import UserError
from selftrain.tables.keys import LABELED_SPLITS, SPLITS


def check_sources(root: Path, config: IngestConfig, seed: int) -> None:
    """Raise UserError for what keeps `ingest` from its first image: of folders, not of what lies in shards.

    Every path is there, every class folder has an image, all labeled splits have the same classes, and each has enough
    images to cut the others from.
    """
    classes = checked_classes(root, config)
    # Shards would have to be read whole to be counted.
    if not any(is_shards(path) and not (root / path).is_dir() for path in config.labeled.images):
        cut_splits(root, config, classes, seed, Counter())


def checked_classes(root: Path, config: IngestConfig) -> list[str]:
    """The classes' names by index, after a look at every folder. Raises UserError as ``check_sources``."""
    if not root.is_dir():
        raise UserError(f"{root}: no such folder; correct `ingest.root` in params.yaml")
    classes = class_names(root, config)
    for split in SPLITS:
        source: Source = getattr(config, split)
        if not source.in_place:
            check_folders(root, source.images, labeled=split in LABELED_SPLITS)
    return classes


def class_names(root: Path, config: IngestConfig) -> list[str]:
    """Class names by index. Every labeled split that has folders must have the same ones."""
    found = {
        split: class_folders(root, source.images)
        for split in LABELED_SPLITS
        if (source := getattr(config, split)).images
    }
    classes = config.classes or found["labeled"]
    if len(set(classes)) != len(classes):
        raise UserError("params.yaml: ingest.classes: a class is named twice")
    for split, names in found.items():
        for name in names:
            if name not in classes:
                raise UserError(f"class '{name}' is a folder of split '{split}', but not a class of split 'labeled'")
        for name in classes if names else []:
            if name not in names:
                raise UserError(f"class '{name}' has no folder in split '{split}'; every split needs every class")
    if not classes:
        raise UserError("params.yaml: ingest.classes: missing; name the classes that the shards' .cls indices mean")
    if len(classes) < 2:
        raise UserError(f"only one class ('{classes[0]}') found; a classifier needs two or more class folders")
    return classes


def found_images(
    root: Path, source: Source, split: str, classes: list[str], ignored: Counter[str]
) -> Iterable[SourceImage]:
    """The images of a split that has paths of its own."""
    return find_images(root, source.images, labeled=split != "unlabeled", classes=classes, ignored=ignored)


def cut_splits(
    root: Path, config: IngestConfig, classes: list[str], seed: int, ignored: Counter[str]
) -> dict[str, list[SourceImage]]:
    """The images of the labeled split, and of those that are cut from it; nothing if none is."""
    shares: dict[str, float] = {}
    for split in ("validation", "test", "unlabeled"):
        source: Source = getattr(config, split)
        if source.share is not None:
            shares[split] = source.share
    if not shares:
        return {}
    return cut(found_images(root, config.labeled, "labeled", classes, ignored), shares, seed)
