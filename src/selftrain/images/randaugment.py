"""RandAugment (Cubuk et al. 2019, arXiv 1909.13719) on images (H, W, 3) uint8, from numbers that the caller gives.

The strengths are those of the papers' authors (the code of Noisy Student and of Meta Pseudo Labels), lengths as shares
of the side of the largest network's image: magnitude 10 is the full strength of AutoAugment's ranges, and 27 goes
beyond it. Their code moves by 100 pixels whatever the size is, and images of 32 pixels by an eighth of the side. Our
own because noise must be a function of (seed, epoch, position), and the libraries draw from global state.
"""

import math
import random
from collections.abc import Callable
from functools import cache, lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from selftrain.images.decode import Pixels
from selftrain.images.opencv import cv2
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
white, one or two views of a hundred at 27. The authors' code goes on."""


class Drawn(NamedTuple):
    """An operation with its strength and, from 0 to 1, a place."""

    name: str
    level: float
    """A tenth of the magnitude; negative to the left or up."""
    x: float = 0.5
    y: float = 0.5


Partner = Callable[[Drawn], Pixels]
"""The image that Sample Pairing mixes in, as large as the view."""


def drawn(
    operations: int,
    magnitude: tuple[float, float],
    probability: tuple[float, float],
    policy: str,
    rng: random.Random,
) -> tuple[Drawn, ...]:
    """Random operations of a policy, a file of ``policies``.

    ``magnitude`` is the range, within 0–30, from which each operation draws its own; ``probability`` the one, within
    0–1, from which the image draws that of each of its operations to be applied.
    """
    names = policy_operations(policy)
    smallest, largest = probability
    often = rng.uniform(smallest, largest) if smallest < largest else smallest
    found = []
    for _ in range(operations):
        name = names[rng.randrange(len(names))]
        sign = 1 if rng.random() < 0.5 else -1
        applied = rng.random() < often
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


def randaugment(image: Pixels, operations: tuple[Drawn, ...], partner: Partner) -> Pixels:
    """Apply drawn operations to an RGB image, which keeps its size and is not changed itself."""
    for operation in operations:
        if operation.name == SAMPLE_PAIRING:
            share = min(0.5, PAIRING * operation.level)
            image = _blended(image, partner(operation), 1 - share)
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


def matrix(operation: Drawn, width: int, height: int) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    """Where each pixel of an affine operation's result comes from; x and y in pixels from the top left corner, so that
    the first pixel's centre is at a half.
    """
    level = operation.level
    if operation.name == "rotate":
        angle = math.radians(ROTATION * level)
        cos, sin, x, y = math.cos(angle), math.sin(angle), width / 2, height / 2
        return (cos, -sin, x - cos * x + sin * y), (sin, cos, y - sin * x - cos * y)
    across = SHEAR * level if operation.name == "shear_x" else 0.0
    down = SHEAR * level if operation.name == "shear_y" else 0.0
    left = TRANSLATION * level * width if operation.name == "translate_x" else 0.0
    top = TRANSLATION * level * height if operation.name == "translate_y" else 0.0
    return (1.0, across, left), (down, 1.0, top)


def _affine(image: Pixels, operation: Drawn) -> Pixels:
    height, width = image.shape[:2]
    centred = _centred(operation.name, operation.level, width, height)
    return cv2.warpAffine(image, centred, (width, height), flags=AFFINE, borderValue=GREY)  # type: ignore[return-value]


@lru_cache(4096)
def _centred(name: str, level: float, width: int, height: int) -> NDArray[np.float64]:
    """``matrix`` as OpenCV has it, which counts from the first pixel's centre, (2, 3)."""
    return np.array([[a, b, c + (a + b - 1) / 2] for a, b, c in matrix(Drawn(name, level), width, height)])


def _rounded(table: NDArray[np.floating] | NDArray[np.integer]) -> NDArray[np.uint8]:
    rounded: NDArray[np.uint8] = np.clip(np.rint(table), 0, 255).astype(np.uint8)
    return rounded


@lru_cache(4096)
def _table(name: str, level: float, mean: int = 0) -> NDArray[np.uint8]:
    """What an operation makes of each value; with one magnitude there are few tables."""
    if name == "solarize":
        return _rounded(np.where(solarize_threshold(level) > VALUES, VALUES, 255 - VALUES))
    if name == "solarize_add":
        return _rounded(np.where(VALUES < 128, VALUES + solarize_added(level), VALUES))
    return _rounded(mean + enhancement(name, level) * (VALUES - mean))


def _auto_contrast(image: Pixels, operation: Drawn) -> Pixels:
    stretched = []
    for channel in cv2.split(image):  # (H, W)
        low, high, _, _ = cv2.minMaxLoc(channel)
        stretched.append(cv2.LUT(channel, _stretched(low, high)) if low < high else channel)
    return cv2.merge(stretched)  # type: ignore[return-value]


@lru_cache(4096)
def _stretched(low: float, high: float) -> NDArray[np.uint8]:
    """A channel's values, so that the lowest becomes 0 and the highest 255."""
    return _rounded(np.floor((VALUES - low) * 255.0 / (high - low)))


def _equalize(image: Pixels, operation: Drawn) -> Pixels:
    """Pillow's: as evenly as a step of whole pixels allows."""
    equalized = []
    for channel in cv2.split(image):  # (H, W)
        counts = cv2.calcHist([channel], [0], None, [256], [0, 256])[:, 0].astype(np.int64)
        brightest = int(cv2.minMaxLoc(channel)[1])
        step = int(channel.size - counts[brightest]) // 255
        if step:  # none where nearly all pixels have the brightest value
            table = (step // 2 + counts.cumsum() - counts) // step
            channel = cv2.LUT(channel, np.minimum(table, 255).astype(np.uint8))
        equalized.append(channel)
    return cv2.merge(equalized)  # type: ignore[return-value]


def _tone(image: Pixels, operation: Drawn) -> Pixels:
    return cv2.LUT(image, _table(operation.name, operation.level))  # type: ignore[return-value]


def _posterize(image: Pixels, operation: Drawn) -> Pixels:
    return np.bitwise_and(image, np.uint8(256 - 2 ** (8 - posterize_bits(operation.level))))


def _blended(image: Pixels, start: Pixels, factor: float) -> Pixels:
    """From another image (0) through the image (1) and beyond."""
    return cv2.addWeighted(image, factor, start, 1 - factor, 0)  # type: ignore[return-value]


def _color(image: Pixels, operation: Drawn) -> Pixels:
    grey = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    return _blended(image, grey, enhancement("color", operation.level))  # type: ignore[arg-type]


def _contrast(image: Pixels, operation: Drawn) -> Pixels:
    mean = int(cv2.mean(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY))[0] + 0.5)
    return cv2.LUT(image, _table("contrast", operation.level, mean))  # type: ignore[return-value]


def _sharpness(image: Pixels, operation: Drawn) -> Pixels:
    smooth = image.copy()  # the outermost pixels stay
    smooth[1:-1, 1:-1] = cv2.filter2D(image, -1, SMOOTHING)[1:-1, 1:-1]
    return _blended(image, smooth, enhancement("sharpness", operation.level))


def _cutout(image: Pixels, operation: Drawn) -> Pixels:
    left, top, right, bottom = cutout_box(operation, image.shape[1], image.shape[0])
    image = image.copy()
    image[top : max(top, bottom), left : max(left, right)] = GREY
    return image


AFFINE = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
VALUES = np.arange(256)
SMOOTHING = np.array([[1, 1, 1], [1, 5, 1], [1, 1, 1]], np.float32) / 13
OPERATIONS: dict[str, Callable[[Pixels, Drawn], Pixels]] = {
    "identity": lambda image, operation: image,
    "auto_contrast": _auto_contrast,
    "equalize": _equalize,
    "invert": lambda image, operation: np.subtract(255, image),
    "posterize": _posterize,
    "solarize": _tone,
    "solarize_add": _tone,
    "color": _color,
    "contrast": _contrast,
    "brightness": _tone,
    "sharpness": _sharpness,
    "shear_x": _affine,
    "shear_y": _affine,
    "translate_y": _affine,
    "translate_x": _affine,
    "rotate": _affine,
    "cutout": _cutout,
}
SAMPLE_PAIRING = "sample_pairing"
"""Needs a second image; see ``Partner``."""
SIGNED = tuple(name for name, operation in OPERATIONS.items() if operation is _affine)
"""Affine operations, which go to either side."""
