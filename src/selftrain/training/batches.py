"""Batches: what a step sees, computed from (seed, step) alone."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from selftrain.counters import Stream, mix, mixed_int
from selftrain.images.device_noise import as_row
from selftrain.images.index import ImageIndex
from selftrain.images.loading import ImageLoader
from selftrain.images.order import stream
from selftrain.images.views import IMAGE_VIEWS, planned, view
from selftrain.images.workers import loader_processes
from selftrain.learning.algorithm import Batch
from selftrain.params.train import TrainConfig
from selftrain.plumbing.hardware import Caches
from selftrain.training.pseudo_labels import PseudoLabels

ORDER = {"labeled": Stream.LABELED_ORDER, "unlabeled": Stream.UNLABELED_ORDER}
NOISE = {"labeled": Stream.LABELED_NOISE, "unlabeled": Stream.UNLABELED_NOISE}
UNIFORM = {"labeled": Stream.LABELED_UNIFORM, "unlabeled": Stream.UNLABELED_UNIFORM}

PLAN = "/plan"
"""After a view's name: the noise that the device has yet to apply to it, as ``device_noise.as_row`` writes it."""


@dataclass(frozen=True)
class Process:
    """Which part of every global batch this process takes."""

    rank: int = 0
    world_size: int = 1

    def part_of(self, count: int) -> tuple[int, int]:
        """(start, length) of this process's contiguous part of ``count`` items, which must divide evenly."""
        assert count % self.world_size == 0
        part = count // self.world_size
        return self.rank * part, part


class TrainingBatches(Dataset[Batch]):
    """The batch of each step, for one process: uint8 images (B, S, S, 3); ``label`` (B,), which of unlabeled images is
    what a person corrected it to, and -1 elsewhere; ``log_probs`` (B, C); ``weight`` (B,); ``uniform`` (B,), from 0
    to 1.
    """

    def __init__(
        self,
        config: TrainConfig,
        views: dict[str, tuple[str, ...]],
        seed: int,
        process: Process,
        labeled: ImageIndex,
        pseudo_labels: PseudoLabels | None,
        labeled_log_probs: NDArray[np.float16] | None = None,
        caches: Caches = Caches(),  # noqa: B008
    ) -> None:
        self.config, self.views, self.seed, self.process = config, views, seed, process
        self.labeled, self.labeled_log_probs = ImageLoader(labeled, caches), labeled_log_probs
        self.pseudo_labels = pseudo_labels
        self.unlabeled = ImageLoader(pseudo_labels.index, caches) if pseudo_labels else None

    def __getitem__(self, step: int) -> Batch:
        """This process's part of the global batch of a step."""
        if "unlabeled" in self.views and self.unlabeled is not None and self.unlabeled.in_store:
            for soon in (step, step + loader_processes()):
                self.unlabeled.ahead(self._unlabeled_rows(soon, self.process)[1])
        makers = {"labeled": self._labeled, "unlabeled": self._unlabeled}
        return {source: makers[source](step) for source in self.views}

    def keys(self, step: int) -> dict[str, list[int]]:
        """Keys of all processes' images of a step, by source."""
        found = {}
        if "labeled" in self.views:
            found["labeled"] = self.labeled.index.keys[self._labeled_rows(step, Process())[1]].tolist()
        if "unlabeled" in self.views:
            assert self.unlabeled is not None
            found["unlabeled"] = self.unlabeled.index.keys[self._unlabeled_rows(step, Process())[1]].tolist()
        return found

    def _labeled(self, step: int) -> dict[str, Tensor]:
        places, rows = self._labeled_rows(step, self.process)
        targets: dict[str, NDArray[np.generic]] = {"label": self.labeled.index.labels[rows].astype(np.int64)}
        if "log_probs" in self.views["labeled"]:
            assert self.labeled_log_probs is not None
            targets["log_probs"] = self.labeled_log_probs[rows]
        return self._view_batch("labeled", self.labeled, places, rows, targets)

    def _unlabeled(self, step: int) -> dict[str, Tensor]:
        assert self.pseudo_labels is not None and self.unlabeled is not None
        places, rows = self._unlabeled_rows(step, self.process)
        targets: dict[str, NDArray[np.generic]] = {
            "label": self.pseudo_labels.known[rows].astype(np.int64),
            "weight": self.pseudo_labels.weights[rows],
        }
        if "log_probs" in self.views["unlabeled"]:
            assert self.pseudo_labels.soft_labels is not None
            targets["log_probs"] = self.pseudo_labels.soft_labels[rows]
        return self._view_batch("unlabeled", self.unlabeled, places, rows, targets)

    def _labeled_rows(self, step: int, process: Process) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """(places in the source's endless stream, rows of its index) of a process in a step."""
        return self._stream(step, self.config.batch_size, len(self.labeled.index), "labeled", process)

    def _unlabeled_rows(self, step: int, process: Process) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        assert self.pseudo_labels is not None
        per_step = self.config.batch_size * self.config.unlabeled_ratio
        places, slots = self._stream(step, per_step, len(self.pseudo_labels.epoch), "unlabeled", process)
        return places, self.pseudo_labels.epoch[slots].astype(np.int64)

    def _stream(
        self, step: int, per_step: int, size: int, source: str, process: Process
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        start, count = process.part_of(per_step)
        first = step * per_step + start
        _, items = stream(first, count, size, mixed_int(self.seed, ORDER[source]))
        return np.arange(first, first + count, dtype=np.int64), items

    def _view_batch(
        self,
        source: str,
        loader: ImageLoader,
        places: NDArray[np.int64],
        rows: NDArray[np.int64],
        targets: dict[str, NDArray[np.generic]],
    ) -> dict[str, Tensor]:
        size, config = self.config.image_size, self.config
        names = [name for name in self.views[source] if name in IMAGE_VIEWS]
        seen = {name: self._as_noised(name, source) for name in names}
        images = {name: np.empty((len(rows), size, size, 3), np.uint8) for name in names}
        plans: dict[str, list[NDArray[np.float64]]] = {f"{name}{PLAN}": [] for name in names if config.noise.on_device}
        uniforms = mix(self.seed, UNIFORM[source], places) / 2.0**64
        # Rounded to float32 the last few would be 1, which no distribution reaches.
        below_one = np.nextafter(np.float32(1), np.float32(0))
        targets = targets | {"uniform": np.minimum(uniforms.astype(np.float32), below_one)}
        for place, row in enumerate(rows):
            # The place in the endless stream is (epoch, position) in one number.
            noise_seed = mixed_int(self.seed, NOISE[source], int(places[place]))
            for name in names:
                how = (loader, int(row), seen[name], size, config.crop_fraction, config.noise, noise_seed)
                if config.noise.on_device:
                    square, plan = planned(*how)
                    images[name][place] = square
                    plans[f"{name}{PLAN}"].append(as_row(plan, config.noise.most_operations))
                else:
                    images[name][place] = view(*how)
        arrays = {**images, **{name: targets[name] for name in self.views[source] if name in targets}}
        arrays |= {name: np.stack(plan) for name, plan in plans.items()}
        return {name: torch.from_numpy(array) for name, array in arrays.items()}

    def _as_noised(self, name: str, source: str) -> str:
        """The view that a source's ``image`` is, by the noise that it gets."""
        noises = self.config.noise.on(source)
        if name != "image" or "augmentation" in noises:
            return name
        return "image_weak" if "weak_augmentation" in noises else "image_clean"
