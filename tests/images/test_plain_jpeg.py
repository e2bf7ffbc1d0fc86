import io

import numpy as np
import pytest
from PIL import Image

from selftrain.images.decode import BrokenImage, decode, decode_pixels, decode_with_format
from selftrain.images.plain_jpeg import decode_plain, plain_size


def jpeg(image: Image.Image, **how: object) -> bytes:
    file = io.BytesIO()
    image.save(file, "JPEG", **how)
    return file.getvalue()


def random_image(rng: np.random.Generator, mode: str) -> Image.Image:
    height, width = rng.integers(1, 70, 2).tolist()
    return Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8)).convert(mode)


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("subsampling", [0, 1, 2])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_pixels_are_pillows(mode: str, subsampling: int, progressive: bool) -> None:
    rng = np.random.default_rng(subsampling)
    for quality in (5, 40, 75, 95, 100):
        image = random_image(rng, mode)
        how = {"subsampling": subsampling, "progressive": progressive, "quality": quality}
        for data in (jpeg(image, **how), jpeg(image, **how, restart_marker_blocks=2, optimize=True)):
            assert plain_size(data) == (image.height, image.width)
            expected = np.array(Image.open(io.BytesIO(data)).convert("RGB"))
            assert np.array_equal(decode_plain(data), expected)
            assert np.array_equal(decode_pixels(data), expected)
            assert np.array_equal(decode(data), expected)


def test_what_needs_a_second_look_is_pillows() -> None:
    image = random_image(np.random.default_rng(0), "RGB")
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = jpeg(image, exif=exif)
    assert plain_size(turned) is None
    assert decode_pixels(turned).shape == (image.width, image.height, 3)
    cmyk = jpeg(image.convert("CMYK"))
    assert plain_size(cmyk) is None
    assert np.array_equal(decode_pixels(cmyk), decode(cmyk))
    file = io.BytesIO()
    image.save(file, "PNG")
    assert plain_size(file.getvalue()) is None
    assert np.array_equal(decode_pixels(file.getvalue()), image)


def test_damage_is_never_believed() -> None:
    rng = np.random.default_rng(1)
    whole = jpeg(random_image(rng, "RGB"), quality=90)
    for cut in range(2, len(whole), 7):
        assert decode_plain(whole[:cut]) is None
    for length in (0, 1, 3, 11):
        assert plain_size(whole[:length]) is None
    with pytest.raises(BrokenImage):
        decode_pixels(whole[: len(whole) // 2])
    with pytest.raises(BrokenImage, match="empty"):
        decode_pixels(b"")


def test_too_large_a_picture_is_told_from_its_head() -> None:
    with pytest.raises(BrokenImage, match=r"too large: 100×80"):
        decode_with_format(jpeg(Image.new("RGB", (100, 80))), max_pixels=7999)
    assert decode_with_format(jpeg(Image.new("RGB", (100, 80))), max_pixels=8000)[0].shape == (80, 100, 3)
