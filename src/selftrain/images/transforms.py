"""From a decoded image to the square that a network sees, without noise."""

import random

import numpy as np
from numpy.typing import NDArray
from PIL import Image

BILINEAR = Image.Resampling.BILINEAR
BICUBIC = Image.Resampling.BICUBIC


def clean(image: Image.Image, size: int, crop_fraction: float = 1.0) -> NDArray[np.uint8]:
    """Resize the shorter side to ``size / crop_fraction`` and take the central ``size``×``size`` square.

    Done as one resampling of the central square, which is the same and never makes a huge picture of a
    very long one.
    """
    side = min(image.size) * crop_fraction
    left, top = (image.width - side) / 2, (image.height - side) / 2
    return _resized(image, (left, top, left + side, top + side), size)


def random_resized_crop(
    image: Image.Image, size: int, scale: tuple[float, float], rng: random.Random
) -> NDArray[np.uint8]:
    """A random part of the image, ``scale`` of its area and between 3:4 and 4:3 wide, resized to a square.

    The crop of Inception training (Szegedy et al. 2015, Section 6); where ten draws do not fit, the clean square.
    """
    for _ in range(10):
        area = image.width * image.height * rng.uniform(*scale)
        ratio = (3 / 4) * (16 / 9) ** rng.random()
        width, height = (area * ratio) ** 0.5, (area / ratio) ** 0.5
        if width <= image.width and height <= image.height:
            left, top = rng.uniform(0, image.width - width), rng.uniform(0, image.height - height)
            return _resized(image, (left, top, left + width, top + height), size)
    return clean(image, size)


def shift(pixels: NDArray[np.uint8], left: int, top: int) -> NDArray[np.uint8]:
    """The image (H, W, 3) moved so that (left, top) comes to its corner, its edges mirrored into the gap."""
    if not left and not top:
        return pixels
    height, width = pixels.shape[:2]
    return pixels[_mirrored(top, height)][:, _mirrored(left, width)]


def _mirrored(first: int, size: int) -> NDArray[np.int64]:
    """Places from ``first`` on, mirrored at both ends, (size,)."""
    places: NDArray[np.int64] = size - 1 - np.abs(size - 1 - np.abs(np.arange(first, first + size)))
    return places


def _resized(image: Image.Image, box: tuple[float, float, float, float], size: int) -> NDArray[np.uint8]:
    return np.asarray(image.resize((size, size), BILINEAR, box=box, reducing_gap=None))
