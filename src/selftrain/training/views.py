"""Views: the versions of an image that algorithms ask for, as functions of (seed, epoch, position)."""

import random

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from selftrain.corpus import transforms
from selftrain.counters import mixed_int
from selftrain.training.config import NoiseConfig
from selftrain.training.randaugment import randaugment

IMAGE_VIEWS = ("image", "image_clean", "image_weak")
"""``image``: all input noise. ``image_weak``: crop, shift and flip only. ``image_clean``: as prediction sees it."""


def view(
    image: Image.Image, name: str, size: int, crop_fraction: float, noise: NoiseConfig, noise_seed: int
) -> NDArray[np.uint8]:
    """One view of a decoded RGB image, (size, size, 3) uint8; all its noise comes from ``noise_seed``."""
    assert name in IMAGE_VIEWS
    if name == "image_clean":
        return np.asarray(transforms.clean(image, size, crop_fraction))
    rng = random.Random(mixed_int(noise_seed, IMAGE_VIEWS.index(name)))
    if noise.random_crop is None:
        square = transforms.clean(image, size, crop_fraction)
    else:
        square = transforms.random_resized_crop(image, size, noise.random_crop, rng)
    if noise.shift:
        square = transforms.random_shift(square, noise.shift, rng)
    if rng.random() < noise.flip:
        square = square.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    if name == "image":
        square = randaugment(square, noise.randaugment_ops, noise.randaugment_magnitude, noise.randaugment_policy, rng)
    return np.asarray(square)
