"""What suites test on: a run's model, and the test images under a condition."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from selftrain.evaluation.robustness.images import Change, Changed, folder_batches, sampled
from selftrain.evaluation.robustness.subject import Subject
from selftrain.images.clean_images import CleanImages, in_batches
from selftrain.images.index import ImageIndex, load_index
from selftrain.images.loading import ImageLoader
from selftrain.images.workers import in_order
from selftrain.params.robustness import RobustnessConfig
from selftrain.plumbing.errors import UserError

Columns = dict[str, NDArray[np.generic]]


@dataclass(frozen=True)
class Condition:
    """One table of a suite."""

    name: str
    parameters: object
    """What the table depends on beside model, images and seed; its ``repr`` is part of the table's stamp."""
    make: Callable[[], Columns]


class Testbed:
    """One run's model and the images that it is tested on."""

    def __init__(self, subject: Subject, corpus: Path, config: RobustnessConfig, seed: int, batch_size: int) -> None:
        self.subject, self.config, self.seed, self.batch_size = subject, config, seed, batch_size
        self.size = config.image_size or subject.size
        self.test = sampled(load_index(corpus / "test"), config.images, seed)
        self.validation = load_index(corpus / "validation")

    def under(self, change: Change, level: float) -> Columns:
        """Predictions for the test images under a change."""
        batches = in_batches(np.arange(len(self.test)), self.batch_size)
        return stacked(
            columns_of(self.test, rows, level, self.subject.log_probs(images))
            for rows, images in zip(batches, self.images(batches, change), strict=True)
        )

    def images(self, batches: list[NDArray[np.int64]], change: Change | None) -> Iterator[torch.Tensor]:
        """Batches of test images, uint8 (B, S, S, 3), or what the change makes of them."""
        loader, crop_fraction = ImageLoader(self.test, self.subject.hardware.caches), self.subject.crop_fraction
        if change is None:
            made = CleanImages(loader, batches, self.subject.size, crop_fraction)
        else:
            made = Changed(loader, batches, self.size, crop_fraction, change)
        return in_order(made, range(len(batches)), self.workers(batches))

    def workers(self, batches: list[NDArray[np.int64]]) -> int:
        """Loader workers for so many batches."""
        # Starting workers costs more than a few batches do.
        return self.subject.hardware.workers if len(batches) > 8 else 0

    def from_folder(self, folder: str, level: float, crop_fraction: float, *, log_probs: bool) -> Columns:
        """Predictions for a labeled folder. Raises UserError if it holds no usable image."""
        broken: list[str] = []
        found = []
        read = folder_batches(folder, self.subject.classes, self.subject.size, crop_fraction, self.batch_size, broken)
        for images, labels in read:
            predicted = self.subject.log_probs(images)
            columns = {"label": labels, "level": np.full(len(labels), level, np.float32), **_answers(predicted)}
            if log_probs:
                columns["log_probs"] = predicted.numpy().astype(np.float16)  # (B, C)
            found.append(columns)
        if not found:
            raise UserError(f"{folder}: no usable image in it ({len(broken)} broken)")
        if broken:
            print(f"{folder}: {len(broken)} broken images left out; the first is {broken[0]}")
        columns = stacked(iter(found))
        return {"key": np.arange(len(columns["label"]), dtype=np.int64), **columns}


def columns_of(index: ImageIndex, rows: NDArray[np.int64], level: float, log_probs: torch.Tensor) -> Columns:
    """A table's rows for a batch: ``rows`` (B,) of the index, log-probabilities (B, C)."""
    return {
        "key": index.keys[rows],
        "label": index.labels[rows],
        "level": np.full(len(rows), level, np.float32),
        **_answers(log_probs),
    }


def stacked(parts: Iterator[Columns]) -> Columns:
    """Parts of a table as one."""
    found = list(parts)
    return {name: np.concatenate([part[name] for part in found]) for name in found[0]}


def _answers(log_probs: torch.Tensor) -> Columns:
    best = log_probs.max(dim=1)
    return {"predicted": best.indices.numpy().astype(np.int32), "confidence": best.values.exp().numpy()}
