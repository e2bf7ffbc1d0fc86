"""Batches of random views outside of training, where each image is seen once: drawn by its key, not by its place."""

import numpy as np
from numpy.typing import NDArray

from selftrain.counters import Stream, mixed_int
from selftrain.images.clean_images import CleanImages
from selftrain.images.loading import ImageLoader
from selftrain.images.views import view
from selftrain.params.noise import NoiseConfig


class NoisedImages(CleanImages):
    """Batches of places in an index, as (B, size, size, 3) uint8, with all input noise: a function of (seed, key)."""

    def __init__(
        self,
        loader: ImageLoader,
        batches: list[NDArray[np.int64]],
        size: int,
        crop_fraction: float,
        noise: NoiseConfig,
        seed: int,
        stream: Stream,
    ) -> None:
        super().__init__(loader, batches, size, crop_fraction)
        self.noise, self.seed, self.stream = noise, seed, stream

    def square(self, row: int) -> NDArray[np.uint8]:
        """The noised view of an image, (size, size, 3)."""
        noise_seed = mixed_int(self.seed, self.stream, int(self.loader.index.keys[row]))
        return view(self.loader, row, "image", self.size, self.crop_fraction, self.noise, noise_seed)
