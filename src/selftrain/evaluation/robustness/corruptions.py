"""The fifteen corruptions of ImageNet-C: Hendrycks and Dietterich, "Benchmarking neural network robustness to common
corruptions and perturbations", ICLR 2019, arXiv 1903.12261.

Each takes images (B, S, S, 3) from 0 to 1, its strength, and one random generator an image, and returns images that may
lie outside 0–1, which ``corrupt`` clips. Strengths are the published ones: those of CIFAR-10-C up to 64 pixels, those
of ImageNet-C above. Where this departs: frost is laid over with computed ice instead of the authors' photographs, and
glass blur really swaps pixels, where the published code, by NumPy's views, copies them.
"""

import io
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import gaussian_filter

from selftrain.counters import Stream, mixed_int, word
from selftrain.evaluation.robustness.textures import (
    Floats,
    Generators,
    disk_kernel,
    filtered,
    frost_layer,
    magnified,
    motion_kernel,
    normal,
    plasma,
    uniform,
    warped,
)
from selftrain.images.opencv import cv2

SEVERITIES = (1, 2, 3, 4, 5)
SMALL = 64
"""Pixels a side up to which CIFAR-10-C's strengths are taken."""


def corrupt(
    images: NDArray[np.uint8], keys: NDArray[np.int64], name: str, severity: int, seed: int
) -> NDArray[np.uint8]:
    """Corrupt images (B, S, S, 3); each image's random numbers come from (seed, corruption, severity, its key)."""
    function, small, large = CORRUPTIONS[name]
    strength = (small if images.shape[1] <= SMALL else large)[severity - 1]
    corrupted = function(images.astype(np.float32) / 255, strength, generators(name, severity, keys, seed))
    return np.asarray(np.rint(np.clip(corrupted, 0, 1) * 255), np.uint8)


def generators(name: str, severity: int, keys: NDArray[np.int64], seed: int) -> Generators:
    """A random generator for each image."""
    stream = mixed_int(seed, Stream.CORRUPTIONS, word(name), severity)
    return [np.random.Generator(np.random.Philox(mixed_int(stream, int(key)))) for key in keys]


def gaussian_noise(images: Floats, scale: float, rngs: Generators) -> Floats:
    """Normal noise of standard deviation ``scale``."""
    return images + scale * normal(rngs, *images.shape[1:])


def shot_noise(images: Floats, photons: float, rngs: Generators) -> Floats:
    """Poisson noise: white is ``photons`` photons."""
    counts = [rng.poisson(image * photons) for rng, image in zip(rngs, images, strict=True)]
    return (np.stack(counts) / photons).astype(np.float32)


def impulse_noise(images: Floats, share: float, rngs: Generators) -> Floats:
    """A share of all values becomes black or white, half each."""
    uniforms = uniform(rngs, *images.shape[1:])
    return np.where(uniforms < share / 2, np.float32(0), np.where(uniforms > 1 - share / 2, np.float32(1), images))


def defocus_blur(images: Floats, strength: tuple[float, float], rngs: Generators) -> Floats:
    """A lens out of focus: (radius, smoothing of the disk's edge)."""
    return filtered(images, [disk_kernel(*strength)] * len(images), cv2.BORDER_REFLECT_101)


def glass_blur(images: Floats, strength: tuple[float, int, int], rngs: Generators) -> Floats:
    """Frosted glass: (sigma of the blur before and after, reach of the swaps, passes of swapping)."""
    sigma, reach, passes = strength
    blurred = gaussian_filter(images, (0, sigma, sigma, 0), mode="nearest")
    size, every = images.shape[1], np.arange(len(images))
    span = size - 2 * reach
    moves = np.stack([rng.integers(-reach, reach, (passes, span, span, 2)) for rng in rngs])
    for turn in range(passes):
        for row in range(size - reach - 1, reach - 1, -1):
            for column in range(size - reach - 1, reach - 1, -1):
                move = moves[:, turn, row - reach, column - reach]  # (B, 2)
                other_row, other_column = row + move[:, 0], column + move[:, 1]
                swapped = blurred[:, row, column].copy()
                blurred[:, row, column] = blurred[every, other_row, other_column]
                blurred[every, other_row, other_column] = swapped
    return np.asarray(gaussian_filter(blurred, (0, sigma, sigma, 0), mode="nearest"), np.float32)


def motion_blur(images: Floats, strength: tuple[int, float], rngs: Generators) -> Floats:
    """Motion within 45° of the horizontal: (radius, sigma)."""
    return filtered(images, [motion_kernel(*strength, float(rng.uniform(-45, 45))) for rng in rngs])


def zoom_blur(images: Floats, strength: tuple[float, float], rngs: Generators) -> Floats:
    """The mean of the image and its magnifications from 1: (up to less than, in steps of)."""
    factors = np.arange(1, *strength)
    total = images.copy()
    for factor in factors:
        total += magnified(images, float(factor))
    return total / (len(factors) + 1)


def snow(images: Floats, strength: tuple[float, ...], rngs: Generators) -> Floats:
    """Falling flakes: (mean, deviation, magnification, threshold, motion's radius and sigma, the image's part)."""
    mean, deviation, zoom, threshold, radius, sigma, part = strength
    size = images.shape[1]
    flakes = magnified(mean + deviation * normal(rngs, size, size), zoom)
    flakes = np.where(flakes < threshold, np.float32(0), np.clip(flakes, 0, 1))
    angles = [float(rng.uniform(-135, -45)) for rng in rngs]
    flakes = filtered(flakes, [motion_kernel(int(radius), sigma, angle) for angle in angles])
    return snowed(images, flakes, part)


def snowed(images: Floats, flakes: Floats, part: float) -> Floats:
    """Images (B, S, S, 3) whitened, with flakes (B, S, S) and the same flakes turned by half laid over."""
    grey = (images @ np.array([0.299, 0.587, 0.114], np.float32))[..., None]
    whitened = part * images + (1 - part) * np.maximum(images, grey * 1.5 + 0.5)
    return np.asarray(whitened + (flakes + flakes[:, ::-1, ::-1])[..., None], np.float32)


def frost(images: Floats, strength: tuple[float, float], rngs: Generators) -> Floats:
    """Ice laid over: (the image's weight, the ice's)."""
    return strength[0] * images + strength[1] * frost_layer(rngs, images.shape[1])


def fog(images: Floats, strength: tuple[float, float], rngs: Generators) -> Floats:
    """Clouds laid over: (thickness, decay of the clouds' octaves)."""
    thickness, decay = strength
    brightest = images.max(axis=(1, 2, 3), keepdims=True)
    clouds = plasma(rngs, images.shape[1], decay)[..., None]
    return np.asarray((images + thickness * clouds) * brightest / (brightest + thickness))


def brightness(images: Floats, added: float, rngs: Generators | None = None) -> Floats:
    """More value in the sense of HSV, at the same hue and saturation."""
    value = images.max(axis=3, keepdims=True)
    brighter = np.clip(value + np.float32(added), 0, 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.where(value > 0, images / value * brighter, brighter))


def contrast(images: Floats, factor: float, rngs: Generators) -> Floats:
    """Differences from each channel's mean, shrunk by a factor."""
    means = images.mean(axis=(1, 2), keepdims=True)
    return np.asarray((images - means) * factor + means)


def elastic_transform(images: Floats, strength: tuple[float, float, float], rngs: Generators) -> Floats:
    """A random affine map and a smooth random displacement: (its size, its smoothness, the affine map's), in pixels.

    Both of the displacement's are in pixels; ImageNet-C's strengths were written for images of 244.
    """
    amount, smoothness, affine = strength
    size = images.shape[1]
    centre, arm = np.float32(size // 2), np.float32(size // 3)
    corners = np.array([[centre + arm] * 2, [centre + arm, centre - arm], [centre - arm] * 2], np.float32)
    result = np.empty_like(images)
    columns, rows = np.meshgrid(np.arange(size, dtype=np.float32), np.arange(size, dtype=np.float32))
    for place, (image, rng) in enumerate(zip(images, rngs, strict=True)):
        moved = corners + rng.uniform(-affine, affine, corners.shape).astype(np.float32)
        bent = warped(image[None], np.asarray(cv2.getAffineTransform(corners, moved)), cv2.BORDER_REFLECT_101)[0]
        noise = rng.uniform(-1, 1, (2, size, size))
        shifts = gaussian_filter(noise, (0, smoothness, smoothness), mode="reflect", truncate=3) * amount
        x, y = columns + shifts[0].astype(np.float32), rows + shifts[1].astype(np.float32)
        result[place] = cv2.remap(bent, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
    return result


def pixelate(images: Floats, factor: float, rngs: Generators) -> Floats:
    """Shrunk by a factor and enlarged again, without interpolation."""
    size = images.shape[1]
    small = int(size * factor)

    def shrunk(image: Image.Image) -> Image.Image:
        return image.resize((small, small), Image.Resampling.BOX).resize((size, size), Image.Resampling.BOX)

    return _through_pillow(images, shrunk)


def jpeg_compression(images: Floats, quality: int, rngs: Generators) -> Floats:
    """Stored as a JPEG of a low quality."""

    def stored(image: Image.Image) -> Image.Image:
        file = io.BytesIO()
        image.save(file, "JPEG", quality=quality)
        return Image.open(file)

    return _through_pillow(images, stored)


def _through_pillow(images: Floats, function: Callable[[Image.Image], Image.Image]) -> Floats:
    pixels = np.rint(images * 255).astype(np.uint8)
    return np.stack([np.asarray(function(Image.fromarray(image)), np.float32) / 255 for image in pixels])


Strengths = tuple[Any, ...]

# name: (function, strengths of CIFAR-10-C, strengths of ImageNet-C), severities 1 to 5.
CORRUPTIONS: dict[str, tuple[Callable[[Floats, Any, Generators], Floats], Strengths, Strengths]] = {
    "gaussian_noise": (gaussian_noise, (0.04, 0.06, 0.08, 0.09, 0.10), (0.08, 0.12, 0.18, 0.26, 0.38)),
    "shot_noise": (shot_noise, (500, 250, 100, 75, 50), (60, 25, 12, 5, 3)),
    "impulse_noise": (impulse_noise, (0.01, 0.02, 0.03, 0.05, 0.07), (0.03, 0.06, 0.09, 0.17, 0.27)),
    "defocus_blur": (
        defocus_blur,
        ((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1, 0.2), (1.5, 0.1)),
        ((3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5)),
    ),
    "glass_blur": (
        glass_blur,
        ((0.05, 1, 1), (0.25, 1, 1), (0.4, 1, 1), (0.25, 1, 2), (0.4, 1, 2)),
        ((0.7, 1, 2), (0.9, 2, 1), (1, 2, 3), (1.1, 3, 2), (1.5, 4, 2)),
    ),
    "motion_blur": (
        motion_blur,
        ((6, 1), (6, 1.5), (6, 2), (8, 2), (9, 2.5)),
        ((10, 3), (15, 5), (15, 8), (15, 12), (20, 15)),
    ),
    "zoom_blur": (
        zoom_blur,
        ((1.06, 0.01), (1.11, 0.01), (1.16, 0.01), (1.21, 0.01), (1.26, 0.01)),
        ((1.11, 0.01), (1.16, 0.01), (1.21, 0.02), (1.26, 0.02), (1.31, 0.03)),
    ),
    "snow": (
        snow,
        (
            (0.1, 0.2, 1, 0.6, 8, 3, 0.95),
            (0.1, 0.2, 1, 0.5, 10, 4, 0.9),
            (0.15, 0.3, 1.75, 0.55, 10, 4, 0.9),
            (0.25, 0.3, 2.25, 0.6, 12, 6, 0.85),
            (0.3, 0.3, 1.25, 0.65, 14, 12, 0.8),
        ),
        (
            (0.1, 0.3, 3, 0.5, 10, 4, 0.8),
            (0.2, 0.3, 2, 0.5, 12, 4, 0.7),
            (0.55, 0.3, 4, 0.9, 12, 8, 0.7),
            (0.55, 0.3, 4.5, 0.85, 12, 8, 0.65),
            (0.55, 0.3, 2.5, 0.85, 12, 12, 0.55),
        ),
    ),
    "frost": (
        frost,
        ((1, 0.2), (1, 0.3), (0.9, 0.4), (0.85, 0.4), (0.75, 0.45)),
        ((1, 0.4), (0.8, 0.6), (0.7, 0.7), (0.65, 0.7), (0.6, 0.75)),
    ),
    "fog": (
        fog,
        ((0.2, 3), (0.5, 3), (0.75, 2.5), (1, 2), (1.5, 1.75)),
        ((1.5, 2), (2, 2), (2.5, 1.7), (2.5, 1.5), (3, 1.4)),
    ),
    "brightness": (brightness, (0.05, 0.1, 0.15, 0.2, 0.3), (0.1, 0.2, 0.3, 0.4, 0.5)),
    "contrast": (contrast, (0.75, 0.5, 0.4, 0.3, 0.15), (0.4, 0.3, 0.2, 0.1, 0.05)),
    "elastic_transform": (
        elastic_transform,
        tuple((32 * a, 32 * b, 32 * c) for a, b, c in (
            (0, 0, 0.08), (0.05, 0.2, 0.07), (0.08, 0.06, 0.06), (0.1, 0.04, 0.05), (0.1, 0.03, 0.03)
        )),
        tuple((244 * a, 244 * b, 244 * c) for a, b, c in (
            (2, 0.7, 0.1), (2, 0.08, 0.2), (0.05, 0.01, 0.02), (0.07, 0.01, 0.02), (0.12, 0.01, 0.02)
        )),
    ),
    "pixelate": (pixelate, (0.95, 0.9, 0.85, 0.75, 0.65), (0.6, 0.5, 0.4, 0.3, 0.25)),
    "jpeg_compression": (jpeg_compression, (80, 65, 58, 50, 40), (25, 18, 15, 10, 7)),
}  # fmt: skip
