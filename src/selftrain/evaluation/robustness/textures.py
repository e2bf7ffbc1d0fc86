"""Layers and kernels that corruptions are made of, for batches of square images."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from selftrain.images.opencv import cv2

Floats = NDArray[Any]
"""float32."""
Generators = list[np.random.Generator]


def normal(rngs: Generators, *shape: int) -> Floats:
    """Standard normal numbers, (B, *shape), each image's from its own generator."""
    return np.stack([rng.standard_normal(shape, dtype=np.float32) for rng in rngs])


def uniform(rngs: Generators, *shape: int) -> Floats:
    """Uniform numbers from 0 to 1, (B, *shape)."""
    return np.stack([rng.random(shape, dtype=np.float32) for rng in rngs])


def plasma(rngs: Generators, size: int, decay: float) -> Floats:
    """Clouds, (B, size, size) from 0 to 1: the diamond–square fractal on a torus, cut from a power of two.

    Every octave's random part has the amplitude w², where w starts at 100 and is divided by ``decay`` each time.
    """
    side = 1 << (size - 1).bit_length()
    heights = np.zeros((len(rngs), side, side), np.float32)
    step, amplitude = side, 100.0

    def displaced(mean: Floats) -> Floats:
        return mean + np.float32(amplitude**2) * (2 * uniform(rngs, *mean.shape[1:]) - 1)

    while step >= 2:
        half = step // 2
        corners = heights[:, ::step, ::step]
        right = corners + np.roll(corners, -1, axis=1)
        middles = displaced((right + np.roll(right, -1, axis=2)) / 4)
        heights[:, half::step, half::step] = middles
        # Each edge's middle lies between two corners and the middles of the two squares that it parts.
        beside = (middles + np.roll(middles, 1, axis=1) + corners + np.roll(corners, -1, axis=2)) / 4
        heights[:, ::step, half::step] = displaced(beside)
        above = (middles + np.roll(middles, 1, axis=2) + corners + np.roll(corners, -1, axis=1)) / 4
        heights[:, half::step, ::step] = displaced(above)
        step, amplitude = half, amplitude / decay
    heights -= heights.min(axis=(1, 2), keepdims=True)
    heights /= np.maximum(heights.max(axis=(1, 2), keepdims=True), np.float32(1e-12))
    return heights[:, :size, :size]


def frost_layer(rngs: Generators, size: int) -> Floats:
    """Ice on a window, (B, size, size, 3) from 0 to 1: bright veins along a fractal's level lines, bluish between."""
    coarse, fine = plasma(rngs, size, 1.9), plasma(rngs, size, 1.5)
    veins = np.exp(-(((coarse * 6) % 1 - 0.5) ** 2) / 0.02) * (0.5 + 0.5 * fine)
    ice = np.clip(0.25 + 0.45 * fine + 0.5 * veins, 0, 1)
    tint = np.array([0.88, 0.95, 1.0], np.float32)
    return ice[..., None] * tint


def disk_kernel(radius: float, smoothing: float) -> Floats:
    """A lens out of focus: a filled disk, its edge smoothed by a Gaussian, that sums to about one."""
    reach = 8 if radius <= 8 else int(radius)
    places = np.arange(-reach, reach + 1)
    disk = (places[:, None] ** 2 + places**2 <= radius**2).astype(np.float32)
    return np.asarray(cv2.GaussianBlur(disk / disk.sum(), (3, 3) if radius <= 8 else (5, 5), smoothing), np.float32)


def motion_kernel(radius: int, sigma: float, angle: float) -> Floats:
    """Motion in one direction: half a Gaussian of ``2 · radius + 1`` samples along a ray, as ImageMagick has it.

    ``angle`` is in degrees. The kernel is (4 · radius + 1) a side and sums to one.
    """
    width = 2 * radius + 1
    weights = np.exp(-(np.arange(width) ** 2) / (2 * sigma**2))
    direction = np.array([np.cos(np.deg2rad(angle)), np.sin(np.deg2rad(angle))])
    kernel = np.zeros((2 * width - 1, 2 * width - 1), np.float32)
    for distance, weight in enumerate(weights / weights.sum()):
        column, row = np.ceil(distance * direction - 0.5).astype(int)
        kernel[width - 1 + row, width - 1 + column] += weight
    return kernel


def filtered(images: Floats, kernels: list[Floats], border: int = cv2.BORDER_REPLICATE) -> Floats:
    """Each image (B, S, S[, 3]) filtered with its own kernel; by default the border's pixels go on."""
    pairs = zip(images, kernels, strict=True)
    return np.stack([cv2.filter2D(image, -1, kernel, borderType=border) for image, kernel in pairs])


def zoomed(images: Floats, factor: float, border: int = cv2.BORDER_REFLECT_101) -> Floats:
    """Images (B, S, S[, 3]) magnified about their centre, bilinear, at the same size."""
    return warped(images, similarity(images.shape[1], factor, 0, (0, 0)), border)


def magnified(images: Floats, factor: float) -> Floats:
    """Images (B, S, S[, 3]) magnified as ImageNet-C and CIFAR-10-C are: a crop of ⌈S / factor⌉ pixels is stretched, end
    to end, to ``factor`` times its pixels, rounded, and cut to S. With few pixels it is not about the centre.
    """
    size = images.shape[1]
    cropped = int(np.ceil(size / factor))
    stretched = max(size, round(cropped * factor))
    first, cut = (size - cropped) // 2, (stretched - size) // 2
    # Each pixel of the result lies between two of the crop, whose first and last keep their places.
    places = np.arange(cut, cut + size) * ((cropped - 1) / max(1, stretched - 1))
    below = np.minimum(places.astype(np.int64), max(0, cropped - 2))
    above, share = np.minimum(below + 1, cropped - 1), (places - below).astype(np.float32)
    crop = images[:, first : first + cropped, first : first + cropped]
    rest = (1,) * (images.ndim - 3)
    down = share.reshape(1, size, 1, *rest)
    rows = crop[:, below] * (1 - down) + crop[:, above] * down
    across = share.reshape(1, 1, size, *rest)
    return np.asarray(rows[:, :, below] * (1 - across) + rows[:, :, above] * across, np.float32)


def similarity(size: int, scale: float, angle: float, shift: tuple[float, float]) -> Floats:
    """The 2×3 matrix that scales and turns (degrees, clockwise) about the centre and then shifts (x, y pixels)."""
    centre = (size - 1) / 2
    matrix = cv2.getRotationMatrix2D((centre, centre), -angle, scale)
    matrix[:, 2] += np.array(shift)
    return np.asarray(matrix, np.float32)


def warped(images: Floats, matrix: Floats, border: int) -> Floats:
    """Images (B, S, S[, 3]) through an affine 2×3 or perspective 3×3 matrix, bilinear; ``border`` is OpenCV's mode."""
    size = images.shape[1]
    warp = cv2.warpAffine if matrix.shape[0] == 2 else cv2.warpPerspective
    return np.stack([warp(image, matrix, (size, size), borderMode=border) for image in images])
