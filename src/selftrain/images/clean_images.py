"""Batches of clean images, as validation and prediction see them."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from selftrain.images.loading import ImageLoader
from selftrain.images.workers import loader_processes


class CleanImages(Dataset[torch.Tensor]):
    """Item ``b`` is the b-th batch of places in an index, as (B, size, size, 3) uint8."""

    def __init__(self, loader: ImageLoader, batches: list[NDArray[np.int64]], size: int, crop_fraction: float) -> None:
        self.loader, self.batches, self.size, self.crop_fraction = loader, batches, size, crop_fraction

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, batch: int) -> torch.Tensor:
        for soon in (batch, batch + loader_processes()):
            if self.loader.in_store and soon < len(self):
                self.loader.ahead(self.batches[soon])
        rows = self.batches[batch]
        images = np.empty((len(rows), self.size, self.size, 3), np.uint8)
        for place, row in enumerate(rows):
            images[place] = self.square(int(row))
        return torch.from_numpy(images)

    def square(self, row: int) -> NDArray[np.uint8]:
        """One image as the network sees it, (size, size, 3)."""
        return self.loader.square(row, self.size, self.crop_fraction)


def in_batches(rows: NDArray[np.int64], batch_size: int) -> list[NDArray[np.int64]]:
    """Cut places in an index into batches of at most ``batch_size``."""
    return [rows[start : start + batch_size] for start in range(0, len(rows), batch_size)]
