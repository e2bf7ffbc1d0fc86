import numpy as np
import pytest

from selftrain.evaluation.robustness.measures import ALEXNET_FLIPS
from selftrain.evaluation.robustness.perturbations import NOISES, PERTURBATIONS, frames, tilt_matrix
from tests.evaluation.robustness.photographs import KEYS, photos

ORDERED = sorted(set(PERTURBATIONS) - set(NOISES))
CLEAN_AT = {"zoom_blur": 0, "brightness": 15, "translate": 7, "rotate": 15, "scale": 15}
"""The frame that is the image itself, at CIFAR-10-P's strengths."""


def test_they_are_imagenet_ps_ten() -> None:
    assert set(PERTURBATIONS) == set(ALEXNET_FLIPS)


@pytest.mark.parametrize("name", sorted(PERTURBATIONS))
def test_sequences_are_keyed_and_start_or_pass_where_they_should(name: str) -> None:
    images = photos(32)
    found = list(frames(images, name, KEYS, 0))
    assert len(found) == {"motion_blur": 21, "translate": 16}.get(name, 31)
    assert all(frame.shape == images.shape and frame.dtype == np.uint8 for frame in found)
    alone = list(frames(images[1:2], name, KEYS[1:2], 0))
    assert all(np.array_equal(one[0], frame[1]) for one, frame in zip(alone, found, strict=True))
    clean = 0 if name in NOISES else CLEAN_AT.get(name)
    if clean is not None:
        assert np.abs(found[clean].astype(int) - images).max() <= 1


@pytest.mark.parametrize("name", ORDERED)
def test_neighbouring_frames_are_more_alike_than_distant_ones(name: str) -> None:
    found = [frame.astype(float) for frame in frames(photos(80), name, KEYS, 0)]
    middle = len(found) // 2
    near = np.abs(found[middle + 1] - found[middle]).mean()
    far = np.abs(found[-1] - found[0]).mean()
    assert 0 < near < far


def test_translation_by_hand() -> None:
    found = list(frames(photos(32), "translate", KEYS, 0))
    assert np.array_equal(found[9][:, :, 2:], photos(32)[:, :, :-2])
    assert np.all(found[9][:, :, :2] == 0)


def test_tilt_by_hand() -> None:
    # The published chain of 4×4 matrices, for one angle.
    size, angle = 32, np.deg2rad(9.0)
    f, cos, sin = np.sqrt(2) * size, np.cos(angle), np.sin(angle)
    flat = np.array([[1, 0, -size / 2], [0, 1, -size / 2], [0, 0, 1], [0, 0, 1]])
    about_x = np.array([[1, 0, 0, 0], [0, cos, -sin, 0], [0, sin, cos, 0], [0, 0, 0, 1]])
    about_y = np.array([[cos, 0, -sin, 0], [0, 1, 0, 0], [sin, 0, cos, 0], [0, 0, 0, 1]])
    away = np.array([[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, f], [0, 0, 0, 1]])
    camera = np.array([[f, 0, size / 2, 0], [0, f, size / 2, 0], [0, 0, 1, 0]])
    np.testing.assert_allclose(tilt_matrix(size, 9.0), camera @ away @ about_x @ about_y @ flat, rtol=1e-5, atol=1e-4)
