"""RandAugment (Cubuk et al. 2019, arXiv 1909.13719) on PIL images, from numbers that the caller gives.

The operations and ranges are AutoAugment's, in the form that gets stronger with the magnitude
throughout ("increasing"). Magnitude 10 is the ranges' full strength; larger ones go beyond, as the
Noisy Student paper's 27 does, and stop where an operation would be undefined. Our own because noise must
be a function of (seed, epoch, position), and the libraries draw from global state.
"""

import random
from collections.abc import Callable
from functools import cache

from PIL import Image, ImageEnhance, ImageOps

from selftrain.plumbing.by_name import find_module
from selftrain.plumbing.errors import UserError
from selftrain.plumbing.sections import did_you_mean

Operation = Callable[[Image.Image, float], Image.Image]

GREY = (128, 128, 128)
PROBABILITY = 0.5
"""Of each drawn operation to be applied."""


def drawn(operations: int, magnitude: float, policy: str, rng: random.Random) -> tuple[tuple[str, float], ...]:
    """(name, level) of random operations of a policy, each of the ``operations`` with probability one half.

    ``magnitude`` is 0–30; ``policy`` names a file of ``policies``.
    """
    names = policy_operations(policy)
    found = []
    for _ in range(operations):
        operation = names[rng.randrange(len(names))]
        sign = 1 if rng.random() < 0.5 else -1
        if rng.random() < PROBABILITY:
            found.append((operation, sign * magnitude / 10))
    return tuple(found)


@cache
def policy_operations(policy: str) -> tuple[str, ...]:
    """The operations of a policy. Raises UserError if there is no such file, or if one of them is not known."""
    names: tuple[str, ...] = find_module("images.policies", policy, "train.noise.randaugment_policy").OPERATIONS
    for name in names:
        if name not in OPERATIONS:
            raise UserError(f"images/policies/{policy}.py: no operation '{name}'; {did_you_mean(name, [*OPERATIONS])}")
    return names


def randaugment(image: Image.Image, operations: tuple[tuple[str, float], ...]) -> Image.Image:
    """Apply drawn operations to an RGB image, which keeps its size."""
    for name, level in operations:
        image = OPERATIONS[name](image, level)
    return image


def _affine(image: Image.Image, *matrix: float) -> Image.Image:
    return image.transform(image.size, Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR, fillcolor=GREY)


def _shear_x(image: Image.Image, level: float) -> Image.Image:
    return _affine(image, 1, 0.3 * level, 0, 0, 1, 0)


def _shear_y(image: Image.Image, level: float) -> Image.Image:
    return _affine(image, 1, 0, 0, 0.3 * level, 1, 0)


def _translate_x(image: Image.Image, level: float) -> Image.Image:
    return _affine(image, 1, 0, 0.45 * level * image.width, 0, 1, 0)


def _translate_y(image: Image.Image, level: float) -> Image.Image:
    return _affine(image, 1, 0, 0, 0, 1, 0.45 * level * image.height)


def _rotate(image: Image.Image, level: float) -> Image.Image:
    return image.rotate(30 * level, Image.Resampling.BILINEAR, fillcolor=GREY)


def _posterize(image: Image.Image, level: float) -> Image.Image:
    return ImageOps.posterize(image, max(1, 4 - int(4 * abs(level))))


def _solarize(image: Image.Image, level: float) -> Image.Image:
    return ImageOps.solarize(image, max(0, 256 - int(256 * abs(level))))


def _solarize_add(image: Image.Image, level: float) -> Image.Image:
    added = min(128, int(110 * abs(level)))
    return image.point([min(255, value + added) if value < 128 else value for value in range(256)] * 3)


def _enhance(enhancer: type) -> Operation:
    def apply(image: Image.Image, level: float) -> Image.Image:
        return enhancer(image).enhance(max(0.0, 1 + 0.9 * level))  # type: ignore[no-any-return]

    return apply


OPERATIONS: dict[str, Operation] = {
    "auto_contrast": lambda image, level: ImageOps.autocontrast(image),
    "equalize": lambda image, level: ImageOps.equalize(image),
    "invert": lambda image, level: ImageOps.invert(image),
    "posterize": _posterize,
    "solarize": _solarize,
    "solarize_add": _solarize_add,
    "color": _enhance(ImageEnhance.Color),
    "contrast": _enhance(ImageEnhance.Contrast),
    "brightness": _enhance(ImageEnhance.Brightness),
    "sharpness": _enhance(ImageEnhance.Sharpness),
    "shear_x": _shear_x,
    "shear_y": _shear_y,
    "translate_y": _translate_y,
    "translate_x": _translate_x,
    "rotate": _rotate,
}
