"""Views: the versions of an image that algorithms ask for, as functions of (seed, epoch, position)."""

import random
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from selftrain.counters import mixed_int
from selftrain.images import transforms
from selftrain.images.randaugment import CUTOUT, Drawn, drawn, randaugment
from selftrain.params.noise import NoiseConfig

IMAGE_VIEWS = ("image", "image_clean", "image_weak")
"""``image``: all input noise. ``image_weak``: crop, shift and flip only. ``image_clean``: as prediction sees it."""


@dataclass(frozen=True)
class Plan:
    """What is drawn for one view of one image, but for its crop."""

    shift: tuple[int, int] = (0, 0)
    """Pixels from the left and from the top."""
    flip: bool = False
    operations: tuple[Drawn, ...] = ()
    """RandAugment's, and Cutout."""


def view(
    image: Image.Image,
    name: str,
    size: int,
    crop_fraction: float,
    noise: NoiseConfig,
    noise_seed: int,
    another: Callable[[float], Image.Image],
) -> NDArray[np.uint8]:
    """One view of a decoded RGB image, (size, size, 3) uint8; all its noise comes from ``noise_seed``.

    ``another`` gives some decoded image of the same source for a number from 0 to 1; Sample Pairing mixes it in.
    """
    square, plan = planned(image, name, size, crop_fraction, noise, noise_seed)
    pixels = transforms.shift(square, *plan.shift)
    if plan.flip:
        pixels = np.fliplr(pixels)

    def partner(operation: Drawn) -> NDArray[np.uint8]:
        return transforms.clean(another(operation.x), size, crop_fraction)

    return randaugment(np.ascontiguousarray(pixels), plan.operations, partner)


def planned(
    image: Image.Image, name: str, size: int, crop_fraction: float, noise: NoiseConfig, noise_seed: int
) -> tuple[NDArray[np.uint8], Plan]:
    """A view's square (size, size, 3), cropped already, and the rest of its noise, to be applied in order: shift, flip,
    operations.
    """
    assert name in IMAGE_VIEWS
    if name == "image_clean":
        return transforms.clean(image, size, crop_fraction), Plan()
    rng = random.Random(mixed_int(noise_seed, IMAGE_VIEWS.index(name)))
    if noise.random_crop is None:
        square = transforms.clean(image, size, crop_fraction)
    else:
        square = transforms.random_resized_crop(image, size, noise.random_crop, rng)
    reach = round(noise.shift * size)
    shift = (rng.randint(-reach, reach), rng.randint(-reach, reach)) if reach else (0, 0)
    flip = rng.random() < noise.flip
    if name == "image_weak":
        return square, Plan(shift, flip)
    operations = drawn(
        noise.randaugment_ops, noise.magnitudes, noise.randaugment_probability, noise.randaugment_policy, rng
    )
    if noise.cutout:
        operations += (Drawn("cutout", noise.cutout / CUTOUT, rng.random(), rng.random()),)
    return square, Plan(shift, flip, operations)
