"""Views: the versions of an image that algorithms ask for, as functions of (seed, epoch, position)."""

import random
from dataclasses import dataclass
from typing import Protocol

from selftrain.counters import mixed_int
from selftrain.images import transforms
from selftrain.images.decode import Pixels
from selftrain.images.opencv import cv2
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


class Images(Protocol):
    """What views are made of: an ``ImageLoader``, which says what its methods do."""

    def image(self, row: int) -> Pixels: ...  # noqa: D102

    def square(self, row: int, size: int, crop_fraction: float) -> Pixels: ...  # noqa: D102

    def another(self, uniform: float, size: int, crop_fraction: float) -> Pixels: ...  # noqa: D102


def view(
    images: Images, row: int, name: str, size: int, crop_fraction: float, noise: NoiseConfig, noise_seed: int
) -> Pixels:
    """One view of an image, (size, size, 3) uint8; all its noise comes from ``noise_seed``.

    Sample Pairing mixes in another one.
    """
    square, plan = planned(images, row, name, size, crop_fraction, noise, noise_seed)
    pixels = transforms.shift(square, *plan.shift)
    if plan.flip:
        pixels = cv2.flip(pixels, 1)  # type: ignore[assignment]  # a seventh of NumPy's time

    def partner(operation: Drawn) -> Pixels:
        return images.another(operation.x, size, crop_fraction)

    return randaugment(pixels, plan.operations, partner)


def planned(
    images: Images, row: int, name: str, size: int, crop_fraction: float, noise: NoiseConfig, noise_seed: int
) -> tuple[Pixels, Plan]:
    """A view's square (size, size, 3), cropped already, and the rest of its noise, to be applied in order: shift, flip,
    operations.
    """
    assert name in IMAGE_VIEWS
    if name == "image_clean":
        return images.square(row, size, crop_fraction), Plan()
    rng = random.Random(mixed_int(noise_seed, IMAGE_VIEWS.index(name)))
    if noise.random_crop is None:
        square = images.square(row, size, crop_fraction)
    else:
        square = transforms.random_resized_crop(images.image(row), size, noise.random_crop, rng)
    reach = round(noise.shift * size)
    shift = (rng.randint(-reach, reach), rng.randint(-reach, reach)) if reach else (0, 0)
    flip = rng.random() < noise.flip
    if name == "image_weak":
        return square, Plan(shift, flip)
    operations = drawn(noise.randaugment_ops, noise.magnitudes, noise.probabilities, noise.randaugment_policy, rng)
    if noise.cutout:
        operations += (Drawn("cutout", noise.cutout / CUTOUT, rng.random(), rng.random()),)
    return square, Plan(shift, flip, operations)
