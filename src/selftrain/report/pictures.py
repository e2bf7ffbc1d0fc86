"""Picture grids: images from the shards, small enough to lie in the page."""

import base64
import io
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from selftrain.images.decode import decode
from selftrain.images.reader import read_rows
from selftrain.tables.manifest import find_rows
from selftrain.tables.truth import NO_CLASS, name_of_no_class

if TYPE_CHECKING:
    import polars as pl

SIDE = 72
LARGEST_PNG = 3000
"""Bytes up to which a small image stays as it is."""
CAPTIONS = {
    "surest": "the most confident of the kept",
    "least sure kept": "the last ones over the threshold and within the quota",
    "corrected": "labeled by a person; a random sample",
    "below the threshold": "a random sample of those that were filtered out",
    "flipped": "labeled otherwise by this run than by its teacher",
    "wrong and kept": "kept with a label that hidden truth contradicts",
    "out of domain and kept": "kept, though they show none of the classes",
}


@dataclass(frozen=True)
class Picture:
    """One image of a grid."""

    data_url: str
    title: str
    """What a pointer or a screen reader tells of it."""
    caption: str
    wrong: bool


@dataclass(frozen=True)
class Grid:
    """A row of pictures with one thing in common."""

    name: str
    caption: str
    pictures: list[Picture]


def picture_grids(examples: "pl.DataFrame", unlabeled: Path, classes: list[str]) -> list[Grid]:
    """The grids of a run's ``examples.parquet``."""
    images = data_urls(unlabeled, examples["key"])
    grids = []
    for name, caption in CAPTIONS.items():
        rows = examples.filter(examples["group"] == name).iter_rows(named=True)
        pictures = [_picture(row, images[row["key"]], classes) for row in rows if row["key"] in images]
        if pictures:
            grids.append(Grid(name, caption, pictures))
    return grids


def data_urls(split: Path, keys: Iterable[int]) -> dict[int, str]:
    """Images of a split's folder by key, as data URLs; those that the corpus no longer has are left out."""
    return {key: data_url(decode(data)) for key, data in read_rows(split, find_rows(split, keys))}


def data_url(image: Image.Image) -> str:
    """A PNG or WebP of at most ``SIDE`` pixels a side, as a data URL; small images stay as they are."""
    small = max(image.size) <= SIDE
    if not small:
        image = image.copy()
        image.thumbnail((SIDE, SIDE))
    file, kind = io.BytesIO(), "png"
    if small:
        image.save(file, "PNG")
    if not small or len(file.getvalue()) > LARGEST_PNG:
        file, kind = io.BytesIO(), "webp"
        image.save(file, "WEBP", quality=80)
    return f"data:image/{kind};base64,{base64.b64encode(file.getvalue()).decode()}"


def _picture(row: dict[str, object], image: str, classes: list[str]) -> Picture:
    label, truth, teacher = (_name(row[column], classes) for column in ("label", "truth", "teacher_label"))
    confidence = f"{row['confidence']:.2f}"
    caption = f"{teacher}→{label} {confidence}" if teacher else f"{label} {confidence}"
    known = f", truth: {truth}" if truth else ""
    copies = f", {row['copies']} copies" if row["copies"] else ""
    return Picture(
        image, f"{row['key']}: {caption}{copies}{known}", caption, wrong=truth is not None and truth != label
    )


def _name(label: object, classes: list[str]) -> str | None:
    if label is None:
        return None
    assert isinstance(label, int)
    return name_of_no_class(classes) if label == NO_CLASS else classes[label]
