"""The device's noise against the loader's, operation by operation and whole."""

import random

import numpy as np
import pytest
import torch
from PIL import Image

from selftrain.images.device_noise import SIGNED, TONES, as_row, noised
from selftrain.images.randaugment import OPERATIONS, Drawn, drawn, randaugment
from selftrain.images.views import Plan, planned, view
from selftrain.params.noise import NoiseConfig
from tests.images.given import Given, photographs

LEVELS = [0.0, 0.1, 0.3, -0.5, 0.9, -0.9, 1.0, 1.7, 2.7, -2.7]


def photo(seed: int, size: int = 32) -> Image.Image:
    """A smooth random image: how affine operations sample noise says nothing."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((size, size), Image.Resampling.BICUBIC)


def on_device(images: list[Image.Image], plans: list[Plan], operations: int) -> np.ndarray:
    pixels = torch.from_numpy(np.stack([np.asarray(image) for image in images]))
    rows = torch.from_numpy(np.stack([as_row(plan, operations) for plan in plans]))
    found = noised(pixels, rows)
    assert torch.equal(found, found.round())
    assert found.min() >= 0
    assert found.max() <= 255
    return found.numpy()


@pytest.mark.parametrize("name", list(TONES))
def test_tones_are_the_loaders_to_one_step(name: str) -> None:
    images = [photo(seed) for seed in range(len(LEVELS))]
    flat = Image.new("RGB", (32, 32), (7, 7, 7))
    levels = [abs(level) for level in LEVELS]
    for images_ in (images, [flat] * len(LEVELS)):
        found = on_device(images_, [Plan(operations=(Drawn(name, level),)) for level in levels], 1)
        for image, level, own in zip(images_, levels, found, strict=True):
            expected = np.asarray(OPERATIONS[name](np.asarray(image), Drawn(name, level))).astype(float)
            assert np.abs(own - expected).max() <= 1, level
            if name in ("invert", "posterize", "solarize", "solarize_add", "equalize"):
                assert np.array_equal(own, expected)


@pytest.mark.parametrize("name", SIGNED)
def test_affine_operations_are_the_loaders(name: str) -> None:
    images = [photo(seed) for seed in range(len(LEVELS))]
    found = on_device(images, [Plan(operations=(Drawn(name, level),)) for level in LEVELS], 1)
    for image, level, own in zip(images, LEVELS, found, strict=True):
        expected = np.asarray(OPERATIONS[name](np.asarray(image), Drawn(name, level))).astype(float)
        differ = np.abs(own - expected).max(axis=2) > 3
        assert differ.mean() < 0.06, level
        if level == 0:
            assert not differ.any()


def test_cutout_is_the_loaders() -> None:
    images = [photo(seed) for seed in range(40)]
    places = np.random.default_rng(0).random((40, 2)).tolist()
    squares = [Drawn("cutout", 0.2 * number, *place) for number, place in enumerate(places)]
    found = on_device(images, [Plan(operations=(operation,)) for operation in squares], 1)
    for image, operation, own in zip(images, squares, found, strict=True):
        assert np.array_equal(own, np.asarray(OPERATIONS["cutout"](np.asarray(image), operation)))
    assert np.array_equal(
        on_device(images[:1], [Plan(operations=(Drawn("identity", 1),))], 1)[0], np.asarray(images[0])
    )


def test_shift_and_flip_are_the_loaders() -> None:
    noise = NoiseConfig(shift=0.2, flip=0.5, randaugment_ops=0)
    images = [photo(seed) for seed in range(40)]
    plans = [planned(Given(*images), row, "image_weak", 32, 1.0, noise, row)[1] for row in range(40)]
    assert len({plan.shift for plan in plans}) > 20
    found = on_device(images, plans, 0)
    for row, own in enumerate(found):
        assert np.array_equal(own, view(Given(*images), row, "image_weak", 32, 1.0, noise, row))


def test_whole_views_are_the_loaders_but_for_sampling() -> None:
    noise = NoiseConfig(
        random_crop=(0.5, 1.0), shift=0.1, flip=0.5, randaugment_ops=2, randaugment_magnitude=9, cutout=0.3
    )
    images = [photo(seed, 48) for seed in range(60)]
    made = [planned(Given(*images), row, "image", 32, 1.0, noise, row) for row in range(60)]
    found = on_device([square for square, _ in made], [plan for _, plan in made], 3)
    views = [view(Given(*images), row, "image", 32, 1.0, noise, row) for row in range(60)]
    expected = np.stack(views).astype(float)
    assert (np.abs(found - expected).max(axis=3) > 8).mean() < 0.05
    assert np.abs(np.stack([np.asarray(square) for square, _ in made]) - expected).mean() > 10


@pytest.mark.parametrize("magnitude", [5, 9, 17, 27])
def test_photographs_are_noised_as_by_the_loader_and_something_is_left_to_see(magnitude: float) -> None:
    given, rng = photographs(), random.Random(0)
    plans = [Plan(operations=drawn(2, (magnitude, magnitude), (1, 1), "full", rng)) for _ in range(1000)]
    squares = [given[turn % len(given)] for turn in range(len(plans))]
    found = on_device([Image.fromarray(square) for square in squares], plans, 2)
    views = [randaugment(square, plan.operations, nobody) for square, plan in zip(squares, plans, strict=True)]
    assert (np.abs(found - np.stack(views)) > 1).mean() < 0.01
    assert (found.std(axis=(1, 2)).max(axis=1) < 8).mean() < 0.005, "no colour changes from place to place"


def nobody(operation: Drawn) -> np.ndarray:
    raise AssertionError("the policy pairs no images")


def test_no_plan_changes_nothing() -> None:
    image = photo(0)
    assert np.array_equal(on_device([image], [Plan()], 2)[0], np.asarray(image))
