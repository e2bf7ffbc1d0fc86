import random

import numpy as np
import pytest
from PIL import Image

from selftrain.images import transforms
from selftrain.images.decode import Pixels
from selftrain.images.views import planned, view
from selftrain.params.noise import NoiseConfig
from tests.images.given import Given


def gradient(width: int, height: int) -> Image.Image:
    x, y = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    return Image.fromarray(np.stack([x, y, np.zeros_like(x)], axis=2).astype(np.uint8))


def pixels(width: int, height: int) -> Pixels:
    return np.array(gradient(width, height))


@pytest.mark.parametrize("size", [(64, 64), (100, 40), (40, 100), (7, 3), (1, 1), (5000, 2)])
def test_any_image_becomes_a_square(size: tuple[int, int]) -> None:
    assert transforms.clean(pixels(*size), 32).shape == (32, 32, 3)
    assert transforms.random_resized_crop(pixels(*size), 32, (0.2, 1), random.Random(0)).shape == (32, 32, 3)


def test_clean_is_the_centre() -> None:
    wide = np.asarray(transforms.clean(pixels(300, 100), 100))
    assert wide[:, 0, 0].mean() == pytest.approx(255 / 3, abs=2)
    assert wide[:, -1, 0].mean() == pytest.approx(2 * 255 / 3, abs=2)
    narrow = np.asarray(transforms.clean(pixels(100, 100), 50, crop_fraction=0.5))
    assert narrow[:, 0, 0].mean() == pytest.approx(255 / 4, abs=4)


def test_random_crops_keep_the_share_of_the_area_that_they_should() -> None:
    shares = []
    for seed in range(300):
        crop = np.asarray(transforms.random_resized_crop(pixels(200, 200), 64, (0.25, 0.5), random.Random(seed)))
        spans = [float(np.ptp(crop[:, :, channel].mean(axis=axis))) / 255 for channel, axis in ((0, 0), (1, 1))]
        shares.append(spans[0] * spans[1])
    assert min(shares) > 0.2
    assert max(shares) < 0.52
    assert np.mean(shares) == pytest.approx(0.375, abs=0.03)


def test_views_are_functions_of_the_noise_seed() -> None:
    noise = NoiseConfig(random_crop=(0.3, 1.0))

    def made(name: str, seed: int) -> bytes:
        return view(Given(gradient(50, 40)), 0, name, 32, 1.0, noise, seed).tobytes()

    assert made("image", 1) == made("image", 1)
    assert len({made("image", seed) for seed in range(20)}) > 15
    assert len({made("image_weak", seed) for seed in range(20)}) > 15
    assert len({made("image_clean", seed) for seed in range(20)}) == 1


def test_cutout_is_a_square_of_its_share_of_the_side_with_its_centre_anywhere() -> None:
    noise, white = NoiseConfig(flip=0, randaugment_ops=0, cutout=0.5), Image.new("RGB", (32, 32), "white")
    grey = np.stack([view(Given(white), 0, "image", 32, 1.0, noise, seed)[:, :, 0] < 255 for seed in range(2000)])
    places = grey.any(axis=(1, 2))
    heights, widths = grey.any(axis=2).sum(axis=1), grey.any(axis=1).sum(axis=1)
    assert (grey.sum(axis=(1, 2)) == heights * widths).all(), "a rectangle"
    assert (heights.max(), widths.max(), places.all()) == (16, 16, True)
    # A centre that is c < 8 from an edge leaves 8 - c outside: 2 · 8² / 2 / 32 = 2 in the mean.
    assert heights.mean() == pytest.approx(14, abs=0.3)
    assert widths.mean() == pytest.approx(14, abs=0.3)


def test_without_noise_every_view_is_the_clean_image() -> None:
    noise = NoiseConfig(flip=0, randaugment_ops=0)
    views = [
        view(Given(gradient(50, 40)), 0, name, 32, 0.9, noise, 3).tobytes()
        for name in ("image", "image_weak", "image_clean")
    ]
    assert len(set(views)) == 1


def test_shifts_mirror_the_edge() -> None:
    still = pixels(32, 32)
    for left, top in ((0, 0), (4, 0), (0, -4), (-3, 2)):
        moved = np.asarray(transforms.shift(still, left, top))
        for y, x in ((16, 16), (0, 0), (31, 31), (0, 31)):
            row, column = (31 - abs(31 - abs(place)) for place in (y + top, x + left))
            assert np.array_equal(moved[y, x], still[row, column])


def test_shifts_reach_every_place_and_no_further() -> None:
    noise = NoiseConfig(shift=0.125, flip=0, randaugment_ops=0)
    found = {planned(Given(gradient(40, 40)), 0, "image_weak", 32, 1.0, noise, seed)[1].shift for seed in range(2000)}
    assert found == {(left, top) for left in range(-4, 5) for top in range(-4, 5)}


def test_flips_come_as_often_as_asked() -> None:
    clean = view(Given(gradient(32, 32)), 0, "image_clean", 32, 1.0, NoiseConfig(), 0)
    noise = NoiseConfig(flip=0.25, randaugment_ops=0)
    flipped = [
        not np.array_equal(view(Given(gradient(32, 32)), 0, "image_weak", 32, 1.0, noise, seed), clean)
        for seed in range(1000)
    ]
    assert 200 < sum(flipped) < 300
