import random

import numpy as np
import pytest
from PIL import Image

from selftrain.images.randaugment import OPERATIONS, drawn, policy_operations, randaugment


def image(seed: int = 0, size: int = 16) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8))


@pytest.mark.parametrize("name", list(OPERATIONS))
@pytest.mark.parametrize("level", [0.0, 0.9, -0.9, 2.7, -2.7, 3.0])
def test_every_operation_works_at_every_strength(name: str, level: float) -> None:
    result = OPERATIONS[name](image(), level)
    assert (result.mode, result.size) == ("RGB", (16, 16))


@pytest.mark.parametrize(
    "name",
    [
        "shear_x",
        "shear_y",
        "translate_x",
        "translate_y",
        "rotate",
        "color",
        "contrast",
        "brightness",
        "sharpness",
        "solarize",
        "solarize_add",
    ],
)
def test_strength_zero_changes_nothing(name: str) -> None:
    assert np.array_equal(np.asarray(OPERATIONS[name](image(), 0.0)), np.asarray(image()))


def test_values_by_hand() -> None:
    pixels = np.array([[[0, 100, 200]]], dtype=np.uint8)
    one = Image.fromarray(pixels)

    def apply(name: str, level: float) -> list[int]:
        return np.asarray(OPERATIONS[name](one, level))[0, 0].tolist()

    assert apply("invert", 1) == [255, 155, 55]
    assert apply("solarize", 0.5) == [0, 100, 55]  # threshold 128
    assert apply("solarize_add", 0.1) == [11, 111, 200]
    assert apply("posterize", 0.9) == [0, 100 & 0b10000000, 200 & 0b10000000]  # 4 − 3 bits
    assert apply("brightness", -1.0) == [0, 10, 20]


def test_translation_is_by_a_share_of_the_side() -> None:
    marked = Image.new("RGB", (20, 20))
    marked.putpixel((10, 10), (255, 255, 255))
    moved = np.asarray(OPERATIONS["translate_x"](marked, 1.0))  # 0.45 · 20 = 9 pixels
    assert moved[10, 1].tolist() == [255, 255, 255]
    assert moved[10, 11].tolist() == [128, 128, 128], "what comes in is grey"


def test_the_noise_is_a_function_of_the_generator_alone() -> None:
    first, again, other = (
        np.asarray(randaugment(image(), drawn(2, 9, "full", random.Random(seed)))) for seed in (1, 1, 2)
    )
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    assert np.array_equal(np.asarray(randaugment(image(), drawn(0, 9, "full", random.Random(1)))), np.asarray(image()))


def test_half_of_the_drawn_operations_are_applied_and_all_are_drawn() -> None:
    class Counting(random.Random):
        drawn: list[int] = []

        def randrange(self, *args: int) -> int:  # type: ignore[override]
            self.drawn.append(super().randrange(*args))
            return self.drawn[-1]

    rng = Counting(0)
    unchanged = sum(
        np.array_equal(np.asarray(randaugment(image(), drawn(1, 9, "full", rng))), np.asarray(image()))
        for _ in range(1000)
    )
    assert 440 < unchanged < 620, "half, and the few that happen to change nothing"
    assert set(rng.drawn) == set(range(len(OPERATIONS)))


def test_the_digits_policy_turns_nothing_into_something_else() -> None:
    assert set(policy_operations("full")) - set(policy_operations("svhn")) == {"rotate", "translate_x"}
