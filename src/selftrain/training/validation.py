"""Accuracy and loss on the validation split, while training."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from selftrain.calibration import FIRMNESS, fit_temperature
from selftrain.images.clean_images import CleanImages, in_batches
from selftrain.images.index import ImageIndex
from selftrain.images.loading import ImageLoader
from selftrain.images.workers import in_order
from selftrain.learning.algorithm import evaluating
from selftrain.networks.models import normalization, to_input
from selftrain.params.train import TrainConfig
from selftrain.plumbing.hardware import Hardware
from selftrain.training.batches import Process
from selftrain.training.distributed import gathered, share_buffers, summed

KEPT_DECODED = 256 * 2**20
"""Bytes of decoded validation images up to which they are decoded once and kept."""


@dataclass(frozen=True, order=True)
class Score:
    """What a model is chosen by: accuracy first, then the lower loss."""

    accuracy: float
    negative_loss: float


class Validation:
    """The validation split; each process looks at its part of it."""

    def __init__(self, index: ImageIndex, config: TrainConfig, hardware: Hardware, process: Process) -> None:
        mine = np.arange(process.rank, len(index), process.world_size)
        batches = in_batches(mine, hardware.predict_batch_size)
        images = CleanImages(ImageLoader(index, hardware.caches), batches, config.image_size, config.crop_fraction)
        self.hardware = hardware
        self.labels = [torch.from_numpy(index.labels[batch].astype(np.int64)) for batch in batches]
        self.images = images
        self.decoded: list[Tensor] | None = None
        if len(mine) * config.image_size**2 * 3 <= KEPT_DECODED:
            self.decoded = list(in_order(images, range(len(images)), workers=0))

    @torch.inference_mode()
    def temperature(self, model: nn.Module) -> float:
        """The temperature that fits a model to all processes' images, held to 1 where they are few.

        The model stays in eval mode.
        """
        share_buffers(model)
        mine = [
            (logits.log_softmax(dim=1).numpy(), of_batch.numpy()) for logits, of_batch in self._logits(model.eval())
        ]
        # Put together after they are gathered: a process without images does not know the number of classes.
        log_probs, labels = zip(*chain.from_iterable(gathered(mine)), strict=True)
        return fit_temperature(np.concatenate(log_probs), np.concatenate(labels), FIRMNESS)

    def _logits(self, model: nn.Module) -> Iterator[tuple[Tensor, Tensor]]:
        """(logits (B, C), labels (B,)) batch by batch, of this process's images."""
        mean, std = normalization(model)
        batches = self.decoded or in_order(self.images, range(len(self.images)), self.hardware.workers)
        for images, labels in zip(batches, self.labels, strict=True):
            with self.hardware.autocast():
                yield model(to_input(images, mean, std, self.hardware.device)).float().cpu(), labels

    @torch.inference_mode()
    def score(self, model: nn.Module) -> Score:
        """Score a model in eval mode, over all processes' parts; its training mode is as before afterwards."""
        share_buffers(model)
        totals = torch.zeros(3, dtype=torch.float64)  # correct, loss, images
        with evaluating(model):
            for logits, labels in self._logits(model):
                totals[0] += (logits.argmax(dim=1) == labels).sum()
                totals[1] += functional.cross_entropy(logits, labels, reduction="sum")
                totals[2] += len(labels)
        # Apple's GPUs have no float64, and no other processes.
        device = "cpu" if self.hardware.device.type == "mps" else self.hardware.device
        correct, loss, images_seen = summed(totals.to(device)).tolist()
        return Score(correct / images_seen, -loss / images_seen)
