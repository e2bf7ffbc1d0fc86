"""A teacher that labels under its own training's noise: what Table 6 of Noisy Student compares the clean one with.

Augmentation is drawn by (seed, key), the network's noise by (seed, first key of the batch).
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from selftrain.counters import Stream, mixed_int
from selftrain.images.clean_images import CleanImages
from selftrain.images.loading import ImageLoader
from selftrain.images.noised_images import NoisedImages
from selftrain.networks.model_noise import ModelNoise, RowDropPath, classifiers
from selftrain.networks.models import load_model
from selftrain.params.noise import Noise, NoiseConfig
from selftrain.plumbing.errors import UserError
from selftrain.tables.records import RunRecord

BATCH_SIZE = 64
"""Dropout is drawn a batch at a time, so that its size is part of the result."""


class NoisedTeacher:
    """A run's model and images with the noises asked for."""

    def __init__(self, folder: Path, noises: tuple[Noise, ...], seed: int) -> None:
        recorded = (RunRecord.read(folder / "run.json").train or {}).get("noise")
        if recorded is None:
            raise UserError(f"predict.noise: {folder / 'run.json'} does not say what noise it was trained with")
        self.noises, self.seed = noises, seed
        self.config = NoiseConfig.model_validate(recorded)

    def load(self, folder: Path) -> tuple[nn.Module, dict[str, Any]]:
        """``load_model``, but for the noises, which stay on."""
        kept = {"dropout": self.config.dropout, "stochastic_depth": self.config.stochastic_depth}
        strengths: dict[str, Any] = {name: rate if name in self.noises else 0.0 for name, rate in kept.items()}
        model, config_json = load_model(folder, stochastic_depth=strengths["stochastic_depth"])
        ModelNoise(model, self.config.model_copy(update=strengths))
        for classifier in classifiers(model):
            classifier.training = True
        for part in model.modules():
            if isinstance(part, RowDropPath):
                part.drop_path.train()
        return model, config_json

    def images(
        self, loader: ImageLoader, batches: list[NDArray[np.int64]], size: int, crop_fraction: float
    ) -> CleanImages:
        """The batches, augmented if that is among the noises."""
        if "augmentation" not in self.noises:
            return CleanImages(loader, batches, size, crop_fraction)
        return NoisedImages(loader, batches, size, crop_fraction, self.config, self.seed, Stream.TEACHER_AUGMENTATION)

    def before_batch(self, first_key: int) -> None:
        """Make the model's noise on the next batch a function of the seed and its first image."""
        torch.manual_seed(mixed_int(self.seed, Stream.TEACHER_MODEL_NOISE, first_key))
