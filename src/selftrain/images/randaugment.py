"""RandAugment (Cubuk et al. 2019, arXiv 1909.13719) on PIL images, from numbers that the caller gives.

The strengths are those of the papers' authors (the code of Noisy Student and of Meta Pseudo Labels), lengths as shares
of the image's side: magnitude 10 is the full strength of AutoAugment's ranges, and 27 goes beyond it. Our own because
noise must be a function of (seed, epoch, position), and the libraries draw from global state.
"""

import random
from collections.abc import Callable
from functools import cache
from typing import NamedTuple

from PIL import Image, ImageDraw, ImageEnhance, ImageOps

from selftrain.plumbing.by_name import find_module
from selftrain.plumbing.errors import UserError
from selftrain.plumbing.sections import did_you_mean

GREY = (128, 128, 128)
SHEAR, ROTATION = 0.3, 30.0
"""Of magnitude 10: a share of the side, degrees."""
TRANSLATION = 100 / 600
"""Of magnitude 10, as a share of the side: 100 pixels where EfficientNet-B7 sees 600."""
CUTOUT = 2 * 40 / 600
"""Side of the square of magnitude 10, as a share of the image's: 40 pixels to each side where B7 sees 600."""
PAIRING = 0.4
"""Share of the other image at magnitude 10 (AutoAugment, arXiv 1805.09501, Table 6)."""
MOST_BRIGHT, MOST_ADDED = 1.9, 110
"""Where brightness and SolarizeAdd stop, at magnitude 10: beyond it a photograph of something before a white wall is
white, 2% of views at 27. The authors' code goes on."""


class Drawn(NamedTuple):
    """An operation with its strength and, from 0 to 1, a place."""

    name: str
    level: float
    """A tenth of the magnitude; negative to the left or up."""
    x: float = 0.5
    y: float = 0.5


Partner = Callable[[Drawn], Image.Image]
"""The image that Sample Pairing mixes in, as large as the view."""


def drawn(
    operations: int, magnitude: tuple[float, float], probability: float, policy: str, rng: random.Random
) -> tuple[Drawn, ...]:
    """Random operations of a policy, a file of ``policies``; each of them is applied with ``probability``.

    ``magnitude`` is the range, within 0–30, from which each operation draws its own.
    """
    names = policy_operations(policy)
    found = []
    for _ in range(operations):
        name = names[rng.randrange(len(names))]
        sign = 1 if rng.random() < 0.5 else -1
        applied = rng.random() < probability
        level, x, y = rng.uniform(*magnitude) / 10, rng.random(), rng.random()
        if applied:
            found.append(Drawn(name, sign * level if name in SIGNED else level, x, y))
    return tuple(found)


@cache
def policy_operations(policy: str) -> tuple[str, ...]:
    """The operations of a policy. Raises UserError if there is no such file, or if one of them is not known."""
    names: tuple[str, ...] = find_module("images.policies", policy, "train.noise.randaugment_policy").OPERATIONS
    known = [*OPERATIONS, SAMPLE_PAIRING]
    for name in names:
        if name not in known:
            raise UserError(f"images/policies/{policy}.py: no operation '{name}'; {did_you_mean(name, known)}")
    return names


def randaugment(image: Image.Image, operations: tuple[Drawn, ...], partner: Partner) -> Image.Image:
    """Apply drawn operations to an RGB image, which keeps its size."""
    for operation in operations:
        if operation.name == SAMPLE_PAIRING:
            image = Image.blend(image, partner(operation), min(0.5, PAIRING * operation.level))
        else:
            image = OPERATIONS[operation.name](image, operation)
    return image


def posterize_bits(level: float) -> int:
    """Bits of each colour that are left."""
    return min(8, max(1, int(4 * level)))


def solarize_threshold(level: float) -> int:
    """Values from here on are inverted."""
    return min(256, int(256 * level))


def solarize_added(level: float) -> int:
    """What is added to values below 128."""
    return min(MOST_ADDED, int(110 * level))


def enhancement(name: str, level: float) -> float:
    """How far an enhancer goes: 0 is its degenerate image, 1 the image itself."""
    factor = 1.8 * level + 0.1
    return min(MOST_BRIGHT, factor) if name == "brightness" else factor


def cutout_box(operation: Drawn, width: int, height: int) -> tuple[int, int, int, int]:
    """(left, top, right, bottom) of the grey square in pixels, right and bottom excluded; it is cut at the edges."""
    half = CUTOUT * operation.level / 2
    left, right = round((operation.x - half) * width), round((operation.x + half) * width)
    top, bottom = round((operation.y - half) * height), round((operation.y + half) * height)
    return max(0, left), max(0, top), min(width, right), min(height, bottom)


def _affine(image: Image.Image, *matrix: float) -> Image.Image:
    return image.transform(image.size, Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR, fillcolor=GREY)


def _shear_x(image: Image.Image, operation: Drawn) -> Image.Image:
    return _affine(image, 1, SHEAR * operation.level, 0, 0, 1, 0)


def _shear_y(image: Image.Image, operation: Drawn) -> Image.Image:
    return _affine(image, 1, 0, 0, SHEAR * operation.level, 1, 0)


def _translate_x(image: Image.Image, operation: Drawn) -> Image.Image:
    return _affine(image, 1, 0, TRANSLATION * operation.level * image.width, 0, 1, 0)


def _translate_y(image: Image.Image, operation: Drawn) -> Image.Image:
    return _affine(image, 1, 0, 0, 0, 1, TRANSLATION * operation.level * image.height)


def _rotate(image: Image.Image, operation: Drawn) -> Image.Image:
    return image.rotate(ROTATION * operation.level, Image.Resampling.BILINEAR, fillcolor=GREY)


def _solarize_add(image: Image.Image, operation: Drawn) -> Image.Image:
    added = solarize_added(operation.level)
    return image.point([min(255, value + added) if value < 128 else value for value in range(256)] * 3)


def _cutout(image: Image.Image, operation: Drawn) -> Image.Image:
    left, top, right, bottom = cutout_box(operation, *image.size)
    if right <= left or bottom <= top:
        return image
    image = image.copy()
    ImageDraw.Draw(image).rectangle((left, top, right - 1, bottom - 1), fill=GREY)
    return image


def _enhanced(enhancer: type) -> Callable[[Image.Image, Drawn], Image.Image]:
    def apply(image: Image.Image, operation: Drawn) -> Image.Image:
        return enhancer(image).enhance(enhancement(operation.name, operation.level))  # type: ignore[no-any-return]

    return apply


OPERATIONS: dict[str, Callable[[Image.Image, Drawn], Image.Image]] = {
    "identity": lambda image, operation: image,
    "auto_contrast": lambda image, operation: ImageOps.autocontrast(image),
    "equalize": lambda image, operation: ImageOps.equalize(image),
    "invert": lambda image, operation: ImageOps.invert(image),
    "posterize": lambda image, operation: ImageOps.posterize(image, posterize_bits(operation.level)),
    "solarize": lambda image, operation: ImageOps.solarize(image, solarize_threshold(operation.level)),
    "solarize_add": _solarize_add,
    "color": _enhanced(ImageEnhance.Color),
    "contrast": _enhanced(ImageEnhance.Contrast),
    "brightness": _enhanced(ImageEnhance.Brightness),
    "sharpness": _enhanced(ImageEnhance.Sharpness),
    "shear_x": _shear_x,
    "shear_y": _shear_y,
    "translate_y": _translate_y,
    "translate_x": _translate_x,
    "rotate": _rotate,
    "cutout": _cutout,
}
SAMPLE_PAIRING = "sample_pairing"
"""Needs a second image; see ``Partner``."""
SIGNED = ("shear_x", "shear_y", "translate_x", "translate_y", "rotate")
