"""RandAugment against the definitions of the papers' authors."""

import random

import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps

from selftrain.images.randaugment import OPERATIONS, Drawn, cutout_box, drawn, policy_operations, randaugment
from selftrain.params.noise import NoiseConfig
from selftrain.plumbing.errors import UserError
from tests.images.given import photographs


def image(seed: int = 0, size: int = 16) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8))


def photo(seed: int, size: int = 64) -> Image.Image:
    """A smooth random image: how affine operations sample noise says nothing."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((size, size), Image.Resampling.BICUBIC)


def nobody(operation: Drawn) -> np.ndarray:
    raise AssertionError(operation)


def applied(name: str, level: float, to: Image.Image) -> np.ndarray:
    return OPERATIONS[name](np.asarray(to), Drawn(name, level))


@pytest.mark.parametrize("name", list(OPERATIONS))
@pytest.mark.parametrize("level", [0.0, 0.1, 0.9, -0.9, 2.7, -2.7, 3.0])
def test_every_operation_works_at_every_strength(name: str, level: float) -> None:
    before = np.asarray(image()).copy()
    result = OPERATIONS[name](before, Drawn(name, level))
    assert (result.dtype, result.shape) == (np.uint8, (16, 16, 3))
    assert np.array_equal(before, np.asarray(image())), "it works on a copy"


@pytest.mark.parametrize(
    "name", ["shear_x", "shear_y", "translate_x", "translate_y", "rotate", "solarize_add", "cutout", "identity"]
)
def test_strength_zero_changes_nothing(name: str) -> None:
    assert np.array_equal(applied(name, 0.0, image()), np.asarray(image()))


def test_values_by_hand() -> None:
    one = Image.fromarray(np.array([[[0, 100, 200]]], dtype=np.uint8))

    def values(name: str, level: float) -> list[int]:
        return applied(name, level, one)[0, 0].tolist()

    assert values("invert", 1) == [255, 155, 55]
    assert values("solarize", 0.5) == [0, 100, 55], "threshold 128"
    assert values("solarize", 1.0) == [0, 100, 200], "threshold 256: the authors' ranges get weaker"
    assert values("solarize_add", 0.1) == [11, 111, 200]
    assert values("solarize_add", 2.7) == [110, 210, 200], "stops at magnitude 10"
    assert values("posterize", 0.5) == [0, 100 & 0b11000000, 200 & 0b11000000], "2 bits"
    assert values("posterize", 0.1) == [0, 0, 200 & 0b10000000], "never none"
    assert values("posterize", 2.7) == [0, 100, 200], "never more than 8"
    assert values("brightness", 0.0) == [0, 10, 20], "a factor of 0.1"
    assert values("brightness", 0.5) == [0, 100, 200], "a factor of 1"


@pytest.mark.parametrize("name", ["color", "contrast", "sharpness"])
def test_enhancers_have_the_authors_factor(name: str) -> None:
    for magnitude in (0, 5, 9, 27):
        factor = 1.8 * magnitude / 10 + 0.1
        expected = getattr(ImageEnhance, name.title())(photo(1)).enhance(factor)
        differ = np.abs(applied(name, magnitude / 10, photo(1)).astype(int) - np.asarray(expected))
        assert differ.max() <= 2 + factor, "luminance and the blend are rounded otherwise"
        assert differ.mean() < 1


@pytest.mark.parametrize(
    ("name", "pillows"), [("auto_contrast", ImageOps.autocontrast), ("equalize", ImageOps.equalize)]
)
def test_what_looks_at_the_whole_image_is_pillows(name: str, pillows: object) -> None:
    flat, dark = Image.new("RGB", (32, 32), (7, 7, 9)), ImageEnhance.Brightness(photo(3)).enhance(0.3)
    for picture in (photo(1), image(2), dark, flat):
        differ = applied(name, 1.0, picture).astype(int) - np.asarray(pillows(picture))  # type: ignore[operator]
        assert np.abs(differ).max() <= (name == "auto_contrast"), "whole numbers, or one rounding of a product"


def pillows_affine(name: str, level: float, picture: Image.Image) -> np.ndarray:
    size = picture.width
    matrices = {
        "shear_x": (1, 0.3 * level, 0, 0, 1, 0),
        "shear_y": (1, 0, 0, 0.3 * level, 1, 0),
        "translate_x": (1, 0, level * size / 6, 0, 1, 0),
        "translate_y": (1, 0, 0, 0, 1, level * size / 6),
    }
    how = {"resample": Image.Resampling.BILINEAR, "fillcolor": (128, 128, 128)}
    if name == "rotate":
        return np.asarray(picture.rotate(30 * level, **how)).astype(int)
    return np.asarray(picture.transform(picture.size, Image.Transform.AFFINE, matrices[name], **how)).astype(int)


@pytest.mark.parametrize("name", ["shear_x", "shear_y", "translate_x", "translate_y", "rotate"])
@pytest.mark.parametrize("level", [0.0, 0.3, -0.5, 0.9, 2.7, -2.7])
def test_affine_operations_are_pillows_but_for_the_outermost_pixels(name: str, level: float) -> None:
    differ = np.abs(applied(name, level, photo(0)) - pillows_affine(name, level, photo(0))).max(axis=2) > 4
    assert differ.mean() < 0.04
    if level == 0:
        assert not differ.any()


def test_translation_is_100_of_600_pixels_at_magnitude_10() -> None:
    marked = Image.new("RGB", (60, 60))
    marked.putpixel((30, 30), (255, 255, 255))
    assert applied("translate_x", 1.0, marked)[30, 20].tolist() == [255, 255, 255]
    assert applied("translate_y", -1.0, marked)[40, 30].tolist() == [255, 255, 255]
    assert applied("translate_x", 1.0, marked)[30, 55].tolist() == [128, 128, 128], "what comes in is grey"
    assert applied("translate_x", 2.7, marked)[30, 3].tolist() == [255, 255, 255], "45% of the side at 27"


def test_cutout_is_a_grey_square_around_its_place() -> None:
    white = Image.new("RGB", (60, 60), (255, 255, 255))
    grey = OPERATIONS["cutout"](np.asarray(white), Drawn("cutout", 1.0, 0.5, 0.25))[:, :, 0] == 128
    expected = np.zeros((60, 60), bool)
    expected[15 - 4 : 15 + 4, 30 - 4 : 30 + 4] = True  # 40 of 600 pixels to each side
    assert np.array_equal(grey, expected)
    assert cutout_box(Drawn("cutout", 1.0, 0.0, 1.0), 60, 60) == (0, 56, 4, 60), "cut at the edges"


def test_sample_pairing_mixes_in_the_other_image() -> None:
    dark, light = np.zeros((4, 4, 3), np.uint8), np.full((4, 4, 3), 200, np.uint8)
    found = randaugment(dark, (Drawn("sample_pairing", 0.5),), lambda operation: light)
    assert found[0, 0].tolist() == [40, 40, 40], "0.4 · 0.5 of it"


def test_the_noise_is_a_function_of_the_generator_alone() -> None:
    def made(seed: int, operations: int = 2) -> np.ndarray:
        operations_ = drawn(operations, (9, 9), (1, 1), "full", random.Random(seed))
        return randaugment(np.asarray(image()), operations_, nobody)

    assert np.array_equal(made(1), made(1))
    assert not np.array_equal(made(1), made(2))
    assert np.array_equal(made(1, operations=0), np.asarray(image()))


def test_operations_are_drawn_evenly_and_applied_as_often_as_asked() -> None:
    rng = random.Random(0)
    views = [drawn(2, (1, 10), (0.5, 0.5), "full", rng) for _ in range(8000)]
    counts = dict.fromkeys(policy_operations("full"), 0)
    for operation in (operation for view in views for operation in view):
        counts[operation.name] += 1
        assert 0.1 <= abs(operation.level) <= 1
    assert sum(counts.values()) == pytest.approx(8000, rel=0.03)
    assert min(counts.values()) > 400
    assert max(counts.values()) < 600
    levels = [operation.level for view in views for operation in view if operation.name == "rotate"]
    assert np.mean(np.array(levels) < 0) == pytest.approx(0.5, abs=0.08)
    assert all(operation.level > 0 for view in views for operation in view if operation.name == "color")
    assert all(len(drawn(2, (9, 9), (1, 1), "svhn", rng)) == 2 for _ in range(100)), "the default applies all"


def test_an_image_draws_one_probability_for_all_of_its_operations() -> None:
    rng, views = random.Random(0), 20_000
    found = [len(drawn(2, (9, 9), (0.2, 0.8), "full", rng)) for _ in range(views)]
    # p is uniform from 0.2 to 0.8: E p² = 0.25 + 0.6² / 12. With a p an operation, both would be applied to a quarter.
    assert found.count(2) / views == pytest.approx(0.28, abs=0.012)
    assert found.count(0) / views == pytest.approx(0.28, abs=0.012)
    assert sum(found) / views == pytest.approx(1, abs=0.02)


def test_of_a_range_each_operation_draws_its_own_magnitude() -> None:
    rng = random.Random(0)
    images = [drawn(2, (1, 10), (1, 1), "full", rng) for _ in range(4000)]
    levels = np.abs([[operation.level for operation in operations] for operations in images])
    # Uniform from 0.1 to 1, and independent of the other operation's.
    assert levels.mean() == pytest.approx(0.55, abs=0.01)
    assert levels.std() == pytest.approx(0.9 / 12**0.5, abs=0.01)
    assert abs(np.corrcoef(levels.T)[0, 1]) < 0.06


def test_policies_are_those_of_the_papers() -> None:
    digits, photographs = set(policy_operations("svhn")), set(policy_operations("meta_pseudo_labels"))
    assert (len(digits), len(photographs), len(policy_operations("full"))) == (12, 15, 16)
    assert photographs - digits == {"rotate", "translate_x", "sample_pairing"}, "Table 5"
    assert set(policy_operations("full")) - photographs == {"cutout", "solarize_add"}
    assert set(policy_operations("fixmatch")) == {
        "auto_contrast", "brightness", "color", "contrast", "equalize", "identity", "posterize", "rotate", "sharpness",
        "shear_x", "shear_y", "solarize", "translate_x", "translate_y",
    }, "FixMatch's Table 12"  # fmt: skip
    with pytest.raises(UserError, match="svhn"):
        policy_operations("shvn")


@pytest.mark.parametrize("magnitude", [5, 9, 17, 27])
@pytest.mark.parametrize("policy", ["full", "meta_pseudo_labels", "svhn", "fixmatch"])
def test_strong_noise_leaves_photographs_to_see(magnitude: float, policy: str) -> None:
    """Fewer than 0.5% of views show nothing; over crops of two photographs."""
    given = photographs()
    rng, count = random.Random(0), 3000
    blank = 0
    for turn in range(count):
        operations = drawn(2, (magnitude, magnitude), (1, 1), policy, rng)
        square = given[turn % len(given)]
        view = randaugment(square, operations, lambda operation: given[int(operation.x * len(given))])
        blank += view.std(axis=(0, 1)).max() < 8  # no colour changes from place to place
    assert blank / count < 0.005


def test_a_range_of_magnitudes_has_its_order() -> None:
    assert NoiseConfig(randaugment_magnitude=9).magnitudes == (9, 9)
    assert NoiseConfig(randaugment_magnitude=(1, 10)).magnitudes == (1, 10)
    with pytest.raises(ValueError, match="smallest, largest"):
        NoiseConfig(randaugment_magnitude=(10, 1))
