"""From a decoded image (H, W, 3) to the square that a network sees, without noise."""

import random

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from selftrain.images.decode import Pixels


def clean(image: Pixels, size: int, crop_fraction: float = 1.0) -> Pixels:
    """Resize the shorter side to ``size / crop_fraction`` and take the central ``size``×``size`` square.

    Done as one resampling of the central square, in whole pixels, which never makes a huge picture of a very long one.
    """
    height, width = image.shape[:2]
    side = max(1, round(min(width, height) * crop_fraction))
    return _resized(image, (width - side) // 2, (height - side) // 2, side, side, size)


def random_resized_crop(image: Pixels, size: int, scale: tuple[float, float], rng: random.Random) -> Pixels:
    """A random part of the image, ``scale`` of its area and between 3:4 and 4:3 wide, resized to a square.

    The crop of Inception training (Szegedy et al. 2015, Section 6); where ten draws do not fit, the clean square.
    """
    image_height, image_width = image.shape[:2]
    for _ in range(10):
        area = image_width * image_height * rng.uniform(*scale)
        ratio = (3 / 4) * (16 / 9) ** rng.random()
        width, height = round((area * ratio) ** 0.5), round((area / ratio) ** 0.5)
        if 0 < width <= image_width and 0 < height <= image_height:
            left, top = rng.randint(0, image_width - width), rng.randint(0, image_height - height)
            return _resized(image, left, top, width, height, size)
    return clean(image, size)


def shift(pixels: Pixels, left: int, top: int) -> Pixels:
    """The image (H, W, 3) moved so that (left, top) comes to its corner, its edges mirrored into the gap."""
    if not left and not top:
        return pixels
    height, width = pixels.shape[:2]
    return pixels[_mirrored(top, height)][:, _mirrored(left, width)]


def _mirrored(first: int, size: int) -> NDArray[np.int64]:
    """Places from ``first`` on, mirrored at both ends, (size,)."""
    places: NDArray[np.int64] = size - 1 - np.abs(size - 1 - np.abs(np.arange(first, first + size)))
    return places


def _resized(image: Pixels, left: int, top: int, width: int, height: int, size: int) -> Pixels:
    """A box of the image as a square: bilinear, over as many pixels as one of the square covers."""
    box = np.ascontiguousarray(image[top : top + height, left : left + width])
    if (width, height) == (size, size):
        return box
    # PyTorch takes a fifth of Pillow's time, and does the same but for the box's outermost pixels, where Pillow looks
    # beyond it. This order keeps the channels last; moving them takes longer than the resize.
    pixels = torch.from_numpy(box)[None].permute(0, 3, 1, 2)
    square = functional.interpolate(pixels, size=(size, size), mode="bilinear", antialias=True)
    return square.permute(0, 2, 3, 1)[0].numpy()
