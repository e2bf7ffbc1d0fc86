import itertools

import cv2
import numpy as np
import pytest
from scipy import ndimage
from skimage.color import hsv2rgb, rgb2hsv

from selftrain.evaluation.robustness import corruptions, textures
from selftrain.evaluation.robustness.corruptions import CORRUPTIONS, SEVERITIES, corrupt
from selftrain.evaluation.robustness.measures import ALEXNET_ERRORS
from tests.evaluation.robustness.photographs import KEYS, photos


def test_they_are_imagenet_cs_fifteen() -> None:
    assert set(CORRUPTIONS) == set(ALEXNET_ERRORS)
    assert len(CORRUPTIONS) == 15


@pytest.mark.parametrize("name", sorted(CORRUPTIONS))
@pytest.mark.parametrize("size", [32, 80])
def test_an_image_is_corrupted_as_its_key_says_whatever_its_batch(name: str, size: int) -> None:
    images = photos(size)
    together = corrupt(images, KEYS, name, 3, seed=0)
    alone = np.concatenate([corrupt(images[n : n + 1], KEYS[n : n + 1], name, 3, seed=0) for n in range(3)])
    assert together.dtype == np.uint8
    assert together.shape == images.shape
    assert np.array_equal(together, alone)
    assert not np.array_equal(together, images)


@pytest.mark.parametrize("name", sorted(set(CORRUPTIONS) - {"elastic_transform", "glass_blur", "snow", "frost", "fog"}))
@pytest.mark.parametrize("size", [32, 80])
def test_severity_grows(name: str, size: int) -> None:
    # Those left out have strengths that trade one thing for another from step to step.
    images = photos(size)
    moved = [np.abs(corrupt(images, KEYS, name, s, 0).astype(float) - images).mean() for s in SEVERITIES]
    assert all(after > before * 0.98 for before, after in itertools.pairwise(moved))
    assert moved[-1] > moved[0]


def rngs(count: int = 3) -> list[np.random.Generator]:
    return [np.random.Generator(np.random.Philox(n)) for n in range(count)]


def test_noises_have_the_published_moments() -> None:
    grey = np.full((3, 64, 64, 3), 0.5, np.float32)
    assert np.std(corruptions.gaussian_noise(grey, 0.18, rngs())) == pytest.approx(0.18, rel=0.02)
    assert np.std(corruptions.shot_noise(grey, 12, rngs())) == pytest.approx((0.5 / 12) ** 0.5, rel=0.02)
    salted = corruptions.impulse_noise(grey, 0.27, rngs())
    assert (salted == 0).mean() == pytest.approx(0.135, abs=0.005)
    assert (salted == 1).mean() == pytest.approx(0.135, abs=0.005)


def test_brightness_is_hsvs() -> None:
    images = photos(32).astype(np.float32) / 255
    expected = rgb2hsv(images)
    expected[..., 2] = np.clip(expected[..., 2] + 0.2, 0, 1)
    np.testing.assert_allclose(corruptions.brightness(images, 0.2), hsv2rgb(expected), atol=1e-5)
    assert np.all(corruptions.brightness(np.zeros((1, 2, 2, 3), np.float32), 0.2) == np.float32(0.2))


def test_contrast_by_hand() -> None:
    image = np.array([0.2, 0.4, 0.6, 0.8], np.float32).reshape(1, 2, 2, 1).repeat(3, axis=3)
    assert corruptions.contrast(image, 0.5, []).ravel()[::3] == pytest.approx([0.35, 0.45, 0.55, 0.65])


def test_kernels_sum_to_one_and_move_where_they_should() -> None:
    for radius, smoothing in ((3, 0.1), (10, 0.5), (0.3, 0.4)):
        assert textures.disk_kernel(radius, smoothing).sum() == pytest.approx(1, abs=0.02)
    kernel = textures.motion_kernel(4, 2.0, 0)
    assert kernel.sum() == pytest.approx(1)
    rows, columns = np.nonzero(kernel)
    assert set(rows) == {8}
    assert columns.min() == 8
    weights = np.exp(-(np.arange(9) ** 2) / 8)
    np.testing.assert_allclose(kernel[8, 8:], weights / weights.sum(), rtol=1e-5)
    rows, columns = np.nonzero(textures.motion_kernel(4, 2.0, 90))
    assert set(columns) == {8}


def test_defocus_has_opencvs_own_border_as_the_authors_have() -> None:
    image = photos(32, 1).astype(np.float32) / 255
    expected = cv2.filter2D(image[0], -1, textures.disk_kernel(1.5, 0.1))
    np.testing.assert_allclose(corruptions.defocus_blur(image, (1.5, 0.1), [])[0], expected, atol=1e-6)


def test_glass_blur_only_moves_pixels_between_its_blurs() -> None:
    images = np.random.default_rng(0).random((2, 12, 12, 3)).astype(np.float32)
    moved = corruptions.glass_blur(images, (0, 2, 3), rngs(2))
    for before, after in zip(images, moved, strict=True):
        assert not np.array_equal(before, after)
        assert sorted(map(tuple, before.reshape(-1, 3))) == sorted(map(tuple, after.reshape(-1, 3)))


def test_fog_keeps_the_brightest_and_plasma_fills_its_range() -> None:
    clouds = textures.plasma(rngs(), 50, 2)
    assert clouds.shape == (3, 50, 50)
    whole = textures.plasma(rngs(), 64, 2)
    assert whole.min() == 0
    assert whole.max() == 1
    smooth = np.abs(np.diff(textures.plasma(rngs(), 64, 3.0), axis=1)).mean()
    rough = np.abs(np.diff(textures.plasma(rngs(), 64, 1.4), axis=1)).mean()
    assert smooth < rough / 2
    images = photos(32).astype(np.float32) / 255
    assert corruptions.fog(images, (1.5, 2), rngs()).max() <= images.max() + 1e-6


def test_pixelate_makes_blocks_and_jpeg_is_pillows() -> None:
    images = photos(32).astype(np.float32) / 255
    half = corruptions.pixelate(images, 0.5, [])
    assert np.array_equal(half[:, ::2], half[:, 1::2])
    assert half[0, 0, 0, 0] == pytest.approx(images[0, :2, :2, 0].mean(), abs=1 / 255)
    assert np.abs(corruptions.jpeg_compression(images, 95, []) - images).mean() < 0.03


def authors_clipped_zoom(image: np.ndarray, factor: float) -> np.ndarray:
    """ImageNet-C's, by scipy: crop, stretch, trim."""
    size = image.shape[0]
    cropped = int(np.ceil(size / factor))
    top = (size - cropped) // 2
    stretched = ndimage.zoom(image[top : top + cropped, top : top + cropped], (factor, factor, 1), order=1)
    trim = (stretched.shape[0] - size) // 2
    return stretched[trim : trim + size, trim : trim + size]


@pytest.mark.parametrize("size", [32, 224])
def test_magnification_is_the_authors(size: int) -> None:
    image = np.random.default_rng(0).random((size, size, 3), np.float32)
    for factor in (1.01, 1.05, 1.1, 1.25, 1.75, 2.25, 3.0):
        expected = authors_clipped_zoom(image, factor)
        np.testing.assert_allclose(textures.magnified(image[None], factor)[0], expected, atol=2e-5)
    np.testing.assert_array_equal(textures.magnified(image[None], 1.0)[0], image)


@pytest.mark.parametrize("size", [32, 224])
@pytest.mark.parametrize("severity", [1, 3, 5])
def test_zoom_blur_changes_photographs_as_the_authors_does(size: int, severity: int) -> None:
    small = ((1.06, 0.01), (1.11, 0.01), (1.16, 0.01), (1.21, 0.01), (1.26, 0.01))
    large = ((1.11, 0.01), (1.16, 0.01), (1.21, 0.02), (1.26, 0.02), (1.31, 0.03))
    image = photos(size, 1)[0]
    factors = np.arange(1, *(small if size == 32 else large)[severity - 1])
    scaled = image.astype(np.float32) / 255
    total = scaled + sum(authors_clipped_zoom(scaled, factor) for factor in factors)
    expected = 255 * np.clip(total / (len(factors) + 1), 0, 1)
    found = corrupt(image[None], np.array([3]), "zoom_blur", severity, 0)[0]
    assert np.abs(found - expected).max() <= 0.51, "rounding alone"


PUBLISHED = {  # of make_cifar_c.py and make_imagenet_c.py, severities 1 to 5
    "gaussian_noise": ([0.04, 0.06, 0.08, 0.09, 0.1], [0.08, 0.12, 0.18, 0.26, 0.38]),
    "shot_noise": ([500, 250, 100, 75, 50], [60, 25, 12, 5, 3]),
    "impulse_noise": ([0.01, 0.02, 0.03, 0.05, 0.07], [0.03, 0.06, 0.09, 0.17, 0.27]),
    "defocus_blur": (
        [(0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1, 0.2), (1.5, 0.1)],
        [(3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5)],
    ),
    "glass_blur": (
        [(0.05, 1, 1), (0.25, 1, 1), (0.4, 1, 1), (0.25, 1, 2), (0.4, 1, 2)],
        [(0.7, 1, 2), (0.9, 2, 1), (1, 2, 3), (1.1, 3, 2), (1.5, 4, 2)],
    ),
    "motion_blur": (
        [(6, 1), (6, 1.5), (6, 2), (8, 2), (9, 2.5)],
        [(10, 3), (15, 5), (15, 8), (15, 12), (20, 15)],
    ),
    "snow": (
        [
            (0.1, 0.2, 1, 0.6, 8, 3, 0.95), (0.1, 0.2, 1, 0.5, 10, 4, 0.9), (0.15, 0.3, 1.75, 0.55, 10, 4, 0.9),
            (0.25, 0.3, 2.25, 0.6, 12, 6, 0.85), (0.3, 0.3, 1.25, 0.65, 14, 12, 0.8),
        ],
        [
            (0.1, 0.3, 3, 0.5, 10, 4, 0.8), (0.2, 0.3, 2, 0.5, 12, 4, 0.7), (0.55, 0.3, 4, 0.9, 12, 8, 0.7),
            (0.55, 0.3, 4.5, 0.85, 12, 8, 0.65), (0.55, 0.3, 2.5, 0.85, 12, 12, 0.55),
        ],
    ),
    "frost": (
        [(1, 0.2), (1, 0.3), (0.9, 0.4), (0.85, 0.4), (0.75, 0.45)],
        [(1, 0.4), (0.8, 0.6), (0.7, 0.7), (0.65, 0.7), (0.6, 0.75)],
    ),
    "fog": (
        [(0.2, 3), (0.5, 3), (0.75, 2.5), (1, 2), (1.5, 1.75)],
        [(1.5, 2), (2, 2), (2.5, 1.7), (2.5, 1.5), (3, 1.4)],
    ),
    "brightness": ([0.05, 0.1, 0.15, 0.2, 0.3], [0.1, 0.2, 0.3, 0.4, 0.5]),
    "contrast": ([0.75, 0.5, 0.4, 0.3, 0.15], [0.4, 0.3, 0.2, 0.1, 0.05]),
    "pixelate": ([0.95, 0.9, 0.85, 0.75, 0.65], [0.6, 0.5, 0.4, 0.3, 0.25]),
    "jpeg_compression": ([80, 65, 58, 50, 40], [25, 18, 15, 10, 7]),
}  # fmt: skip


def test_strengths_are_the_published_ones() -> None:
    found = {name: (list(CORRUPTIONS[name][1]), list(CORRUPTIONS[name][2])) for name in PUBLISHED}
    assert found == PUBLISHED
    shares = [(0, 0, 0.08), (0.05, 0.2, 0.07), (0.08, 0.06, 0.06), (0.1, 0.04, 0.05), (0.1, 0.03, 0.03)]
    np.testing.assert_allclose(CORRUPTIONS["elastic_transform"][1], 32 * np.array(shares))
    assert CORRUPTIONS.keys() - PUBLISHED.keys() == {"zoom_blur", "elastic_transform"}, "tested by themselves"


def test_snow_whitens_and_lies_twice_once_turned_by_half() -> None:
    image = photos(32, 1)[0].astype(np.float32) / 255
    flakes = np.zeros((32, 32), np.float32)
    flakes[3, 5] = 0.5
    found = corruptions.snowed(image[None], flakes[None], 0.8)[0]
    for row, column in ((0, 0), (3, 5), (28, 26), (5, 3)):
        red, green, blue = image[row, column].tolist()
        white = 1.5 * (0.299 * red + 0.587 * green + 0.114 * blue) + 0.5
        flake = 0.5 if (row, column) in ((3, 5), (31 - 3, 31 - 5)) else 0
        expected = [0.8 * value + 0.2 * max(value, white) + flake for value in (red, green, blue)]
        np.testing.assert_allclose(found[row, column], expected, rtol=1e-5)


def test_frost_and_elastic_transform_do_as_much_as_they_are_told() -> None:
    images = photos(32, 2).astype(np.float32) / 255

    def rngs() -> list[np.random.Generator]:
        return [np.random.default_rng(seed) for seed in range(len(images))]

    ice = corruptions.frost(images, (0, 1), rngs())
    assert ice.std() > 0.05
    np.testing.assert_allclose(corruptions.frost(images, (0.7, 0.4), rngs()), 0.7 * images + 0.4 * ice, atol=1e-6)
    still = corruptions.elastic_transform(images, (0, 1, 0), rngs())
    np.testing.assert_allclose(still, images, atol=1e-5)
    # The affine map moves three corners by at most so many pixels: the middle by at most as many.
    moved = corruptions.elastic_transform(np.stack([disc(32)] * 2), (0, 1, 2.0), rngs())
    for image in moved:
        weight = image[:, :, 0] / image[:, :, 0].sum()
        centre = [(weight * place).sum() for place in np.indices((32, 32))]
        assert np.abs(np.array(centre) - 16).max() <= 2.5
    assert np.abs(moved[0] - moved[1]).max() > 0.1


def disc(size: int) -> np.ndarray:
    rows, columns = np.indices((size, size))
    return np.repeat(((rows - size / 2) ** 2 + (columns - size / 2) ** 2 < 16)[:, :, None], 3, axis=2).astype(
        np.float32
    )
