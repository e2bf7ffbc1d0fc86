"""The ten perturbation sequences of ImageNet-P: Hendrycks and Dietterich, ICLR 2019, arXiv 1903.12261.

A sequence shows one image under a perturbation that grows or moves from frame to frame. Strengths are the published
ones: CIFAR-10-P's up to 64 pixels, ImageNet-P's above. Frames are made from the square that the network sees, so
what comes in at the border is black, as in CIFAR-10-P, and not the rest of a larger photograph.
"""

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from selftrain.evaluation.robustness.corruptions import SMALL, brightness, generators, snowed
from selftrain.evaluation.robustness.textures import (
    Floats,
    Generators,
    filtered,
    magnified,
    motion_kernel,
    normal,
    similarity,
    warped,
    zoomed,
)
from selftrain.images.opencv import cv2

FRAMES = 31
MOST_FRAMES = 41
BLACK = cv2.BORDER_CONSTANT
NOISES = ("gaussian_noise", "shot_noise")
"""Sequences without an order: every frame is compared with the first, which is clean."""

Frames = Iterator[Floats]


def frames(images: NDArray[np.uint8], name: str, keys: NDArray[np.int64], seed: int) -> Iterator[NDArray[np.uint8]]:
    """The frames of a perturbation of images (B, S, S, 3), in order; random numbers from (seed, name, key)."""
    small = images.shape[1] <= SMALL
    for frame in PERTURBATIONS[name](images.astype(np.float32) / 255, small, generators(name, 0, keys, seed)):
        yield np.rint(np.clip(frame, 0, 1) * 255).astype(np.uint8)


def gaussian_noise(images: Floats, small: bool, rngs: Generators) -> Frames:
    """The image, then fresh normal noise in every frame."""
    yield images
    for _ in range(1, FRAMES):
        yield images + (0.02 if small else 0.03) * normal(rngs, *images.shape[1:])


def shot_noise(images: Floats, small: bool, rngs: Generators) -> Frames:
    """The image, then fresh Poisson noise in every frame."""
    photons = 700 if small else 300
    yield images
    for _ in range(1, FRAMES):
        counts = [rng.poisson(image * photons) for rng, image in zip(rngs, images, strict=True)]
        yield (np.stack(counts) / photons).astype(np.float32)


def motion_blur(images: Floats, small: bool, rngs: Generators) -> Frames:
    """Motion whose direction turns."""
    radius, sigma, count, turn = (6, 1.8, 21, 9) if small else (10, 3, FRAMES, 4)
    for frame in range(count):
        kernel = motion_kernel(int(radius), sigma, (frame - count + 1) * turn)
        yield filtered(images, [kernel] * len(images))


def zoom_blur(images: Floats, small: bool, rngs: Generators) -> Frames:
    """The mean of ever more magnifications."""
    total = images.copy()
    yield images
    for frame in range(1, FRAMES):
        total += zoomed(images, 1 + 0.004 * frame, BLACK)
        yield total / (frame + 1)


def snow(images: Floats, small: bool, rngs: Generators) -> Frames:
    """Falling flakes whose direction turns."""
    zoom, radius, sigma = (2, 10, 2.0) if small else (3, 14, 4.0)
    size = images.shape[1]
    flakes = magnified(0.05 + 0.3 * normal(rngs, size, size), zoom)
    flakes = np.where(flakes < 0.5, np.float32(0), np.clip(flakes, 0, 1))
    for frame in range(FRAMES):
        kernel = motion_kernel(radius, sigma, 4 * frame - 150)
        yield snowed(images, filtered(flakes, [kernel] * len(images)), 0.85)


def brightening(images: Floats, small: bool, rngs: Generators) -> Frames:
    """From darker to brighter."""
    for frame in range(FRAMES):
        yield brightness(images, (frame - 15) * (0.015 if small else 0.02))


def translate(images: Floats, small: bool, rngs: Generators) -> Frames:
    """From left to right, a pixel a frame."""
    count, first = (16, -7) if small else (41, -20)
    for frame in range(count):
        yield warped(images, similarity(images.shape[1], 1, 0, (frame + first, 0)), BLACK)


def rotate(images: Floats, small: bool, rngs: Generators) -> Frames:
    """From −15° to 15°."""
    for frame in range(FRAMES):
        yield warped(images, similarity(images.shape[1], 1, frame - 15, (0, 0)), BLACK)


def tilt(images: Floats, small: bool, rngs: Generators) -> Frames:
    """Turned in depth about both axes, seen from a diagonal's distance."""
    for frame in range(FRAMES):
        yield warped(images, tilt_matrix(images.shape[1], (frame - 15) * (0.75 if small else 1.0)), BLACK)


def tilt_matrix(size: int, degrees: float) -> Floats:
    """The 3×3 homography of a square turned by an angle about its vertical and then its horizontal axis."""
    distance, half, angle = np.sqrt(2) * size, size / 2, np.deg2rad(degrees)
    cos, sin = np.cos(angle), np.sin(angle)
    about_horizontal = np.array([[1, 0, 0], [0, cos, -sin], [0, sin, cos]])
    about_vertical = np.array([[cos, 0, -sin], [0, 1, 0], [sin, 0, cos]])
    # A point (x, y) of the square lies at (x − half, y − half, 1) before the turn and is moved back by the distance.
    centred = np.array([[1, 0, -half], [0, 1, -half], [0, 0, 1]])
    turned = about_horizontal @ about_vertical @ centred
    turned[2] += [0, 0, distance]
    camera = np.array([[distance, 0, half], [0, distance, half], [0, 0, 1]])
    return np.asarray(camera @ turned, np.float32)


def scale(images: Floats, small: bool, rngs: Generators) -> Frames:
    """From smaller to larger."""
    first, step = (0.70, 0.02) if small else (0.40, 0.025)
    for frame in range(FRAMES):
        yield zoomed(images, first + step * frame, BLACK)


PERTURBATIONS: dict[str, Callable[[Floats, bool, Generators], Frames]] = {
    "gaussian_noise": gaussian_noise,
    "shot_noise": shot_noise,
    "motion_blur": motion_blur,
    "zoom_blur": zoom_blur,
    "snow": snow,
    "brightness": brightening,
    "translate": translate,
    "rotate": rotate,
    "tilt": tilt,
    "scale": scale,
}
