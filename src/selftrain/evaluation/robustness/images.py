"""The images that a run is put through: test images under a condition, and labeled folders from elsewhere."""

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from selftrain.corpus.sources import find_images
from selftrain.counters import Stream, mix
from selftrain.images import transforms
from selftrain.images.clean_images import CleanImages
from selftrain.images.decode import BrokenImage, decode_pixels
from selftrain.images.index import ImageIndex
from selftrain.images.loading import ImageLoader
from selftrain.plumbing.errors import UserError

Change = Callable[[NDArray[np.uint8], NDArray[np.int64]], NDArray[np.uint8]]
"""From clean squares (B, S, S, 3) and their keys (B,) to what is shown: (B, S, S, 3), or (frames, B, S, S, 3)."""


class Changed(CleanImages):
    """Batches of clean squares, changed; loader workers do the work."""

    def __init__(
        self,
        loader: ImageLoader,
        batches: list[NDArray[np.int64]],
        size: int,
        crop_fraction: float,
        change: Change,
    ) -> None:
        super().__init__(loader, batches, size, crop_fraction)
        self.change = change

    def __getitem__(self, batch: int) -> torch.Tensor:
        """The b-th changed batch, uint8."""
        squares = super().__getitem__(batch).numpy()
        return torch.from_numpy(self.change(squares, self.loader.index.keys[self.batches[batch]]))


def sampled(index: ImageIndex, count: int | None, seed: int) -> ImageIndex:
    """At most ``count`` images of an index, drawn by the seed, in key order."""
    if count is None or count >= len(index):
        return index
    return index.take(np.sort(np.argsort(mix(seed, Stream.ROBUSTNESS_SUBSET, index.keys), kind="stable")[:count]))


def corruption_folder(root: str, name: str, severity: int) -> str:
    """A corruption's folder at a severity, in ImageNet-C's layout: directly under the root or, as its archives are
    often unpacked, under ``noise``, ``blur``, ``weather`` or ``digital``. Raises UserError if it is in neither place.
    """
    for folder in (Path(root), *sorted(path for path in Path(root).glob("*") if path.is_dir())):
        if (folder / name / str(severity)).is_dir():
            return str(folder / name / str(severity))
    raise UserError(
        f"{root}: no folder {name}/{severity} in it; ImageNet-C's layout is <corruption>/<severity>/<class>"
    )


def folder_batches(
    folder: str, classes: list[str], size: int, crop_fraction: float, batch_size: int, broken: list[str]
) -> Iterator[tuple[torch.Tensor, NDArray[np.int32]]]:
    """(clean squares (B, S, S, 3) uint8, labels (B,)) of a labeled folder whose classes are among ``classes``.

    Sources of broken images are added to ``broken``. Raises UserError for a folder of a class that the model lacks.
    """
    places = {name: place for place, name in enumerate(classes)}
    squares: list[NDArray[np.uint8]] = []
    labels: list[int] = []
    for image in find_images(Path(), [folder], labeled=True, classes=classes, ignored=Counter()):
        if image.problem:
            broken.append(f"{image.source}: {image.problem}")
            continue
        if image.class_name not in places:
            raise UserError(
                f"{folder}: its class '{image.class_name}' is none of the model's; rename or remove the folder"
            )
        try:
            square = transforms.clean(decode_pixels(image.read()), size, crop_fraction)
        except (BrokenImage, OSError) as error:
            broken.append(f"{image.source}: {error}")
            continue
        squares.append(square)
        labels.append(places[image.class_name])
        if len(squares) == batch_size:
            yield torch.from_numpy(np.stack(squares)), np.array(labels, np.int32)
            squares, labels = [], []
    if squares:
        yield torch.from_numpy(np.stack(squares)), np.array(labels, np.int32)
