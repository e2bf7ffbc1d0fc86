import io

import numpy as np
import pytest
from PIL import ExifTags, Image

from selftrain.images.decode import BrokenImage, decode, decode_pixels, decode_with_format, rgb_pixels
from tests.conftest import image_bytes


def encoded(image: Image.Image, image_format: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, image_format, **options)
    return file.getvalue()


@pytest.mark.parametrize("image_format", ["PNG", "BMP", "GIF", "TIFF", "WEBP", "JPEG"])
def test_every_format_gives_rgb_of_the_same_size(image_format: str) -> None:
    image, found = decode_with_format(image_bytes(1, (13, 7), image_format))
    assert (image.shape, image.dtype, found) == ((7, 13, 3), np.uint8, image_format)


@pytest.mark.parametrize("mode", ["1", "L", "P", "LA", "RGBA", "CMYK", "YCbCr"])
def test_every_mode_gives_rgb(mode: str) -> None:
    image_format = {"CMYK": "TIFF", "YCbCr": "JPEG"}.get(mode, "PNG")
    assert decode(image_bytes(1, (8, 8), image_format, mode)).mode == "RGB"


def test_an_image_that_is_open_has_the_pixels_of_its_file() -> None:
    turned = Image.Exif()
    turned[ExifTags.Base.Orientation] = 6
    rng = np.random.default_rng(0)
    files = {
        "on its side": encoded(Image.open(io.BytesIO(image_bytes(1, (30, 20), "JPEG"))), "JPEG", exif=turned),
        "transparent": encoded(Image.new("RGBA", (3, 2), (0, 0, 0, 0)), "PNG"),
        "16 bits": encoded(Image.fromarray(rng.integers(0, 2**16, (4, 5)).astype(np.uint16)), "PNG"),
        "palette": image_bytes(1, (8, 8), "PNG", "P"),
    }
    for name, data in files.items():
        np.testing.assert_array_equal(rgb_pixels(Image.open(io.BytesIO(data))), decode_pixels(data), err_msg=name)
    assert decode_pixels(files["on its side"]).shape == (30, 20, 3)


def test_transparency_lies_on_white() -> None:
    image = Image.new("RGBA", (2, 1), (200, 0, 0, 255))
    image.putpixel((1, 0), (200, 0, 0, 0))
    assert np.asarray(decode(encoded(image, "PNG"))).tolist() == [[[200, 0, 0], [255, 255, 255]]]
    keyed = Image.new("RGB", (1, 1), (9, 8, 7))
    assert np.asarray(decode(encoded(keyed, "PNG", transparency=(9, 8, 7)))).tolist() == [[[255, 255, 255]]]
    palette = Image.new("P", (1, 1), 3)
    palette.putpalette([0, 0, 0] * 256)
    assert np.asarray(decode(encoded(palette, "PNG", transparency=3))).tolist() == [[[255, 255, 255]]]


def test_a_phones_heic_is_read_upright_with_the_extra_and_named_without(monkeypatch: pytest.MonkeyPatch) -> None:
    import pillow_heif

    left_to_right = np.zeros((32, 64, 3), np.uint8)
    left_to_right[:, 32:] = 255
    exif = Image.Exif()
    exif[0x0112] = 6
    file = io.BytesIO()
    pillow_heif.from_pillow(Image.fromarray(left_to_right)).save(file, quality=-1, exif=exif.tobytes())
    image, image_format = decode_with_format(file.getvalue())
    assert (image.shape, image_format) == ((64, 32, 3), "HEIF")
    assert np.abs(np.asarray(image).mean((1, 2)) - np.repeat([0.0, 255.0], 32)).max() < 2, "top dark, bottom light"
    with pytest.raises(BrokenImage, match="too large"):
        decode_with_format(file.getvalue(), max_pixels=100)
    monkeypatch.setattr("selftrain.images.decode.teach_pillow", lambda: False)
    with pytest.raises(BrokenImage, match=r"selftrain\[heif\]"):
        decode(file.getvalue())


def test_avif_is_not_taken_for_heic(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("selftrain.images.decode.teach_pillow", lambda: False)
    assert decode_with_format(encoded(Image.new("RGB", (8, 8), "red"), "AVIF"))[1] == "AVIF"


def test_sixteen_bits_are_scaled_not_clipped() -> None:
    values = np.array([[0, 257 * 100, 65535]], dtype=np.uint16)
    assert np.asarray(decode(encoded(Image.fromarray(values), "PNG")))[0, :, 0].tolist() == [0, 100, 255]


@pytest.mark.parametrize(("values", "expected"), [([0, 0.5, 1], [0, 128, 255]), ([-10, 0, 10], [0, 128, 255])])
def test_floats_are_scaled_by_their_range(values: list[float], expected: list[int]) -> None:
    image = Image.fromarray(np.array([values], dtype=np.float32))
    assert np.asarray(decode(encoded(image, "TIFF")))[0, :, 0].tolist() == expected


def test_exif_rotation_is_applied() -> None:
    image = Image.new("RGB", (4, 2), "white")
    exif = Image.Exif()
    exif[0x0112] = 6  # rotate a quarter turn to see it upright
    assert decode(encoded(image, "JPEG", exif=exif)).size == (2, 4)


def test_the_first_frame_of_an_animation() -> None:
    frames = [Image.new("RGB", (3, 3), colour) for colour in ("red", "blue")]
    data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert decode(data).getpixel((0, 0)) == (255, 0, 0)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty file"),
        (b"hello", "not an image in a known format"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not an image in a known format"),
        (image_bytes(1, (64, 64), "JPEG")[:700], "cannot be decoded"),
        (image_bytes(1, (64, 64), "PNG")[:3000], "cannot be decoded"),
    ],
)
def test_broken_images_have_a_reason(data: bytes, reason: str) -> None:
    with pytest.raises(BrokenImage, match=reason):
        decode(data)


def test_a_bomb_is_refused_before_it_is_decoded() -> None:
    bomb = encoded(Image.new("1", (13_000, 13_000)), "PNG")
    assert len(bomb) < 100_000
    with pytest.raises(BrokenImage, match="too large: 13000×13000"):
        decode_with_format(bomb, max_pixels=100_000_000)


def test_nan_pixels_are_broken() -> None:
    image = Image.fromarray(np.array([[np.nan, 1]], dtype=np.float32))
    with pytest.raises(BrokenImage, match="NaN"):
        decode(encoded(image, "TIFF"))


def test_what_phones_write() -> None:
    """JPEG files of several pictures, and AVIF."""
    red, grey = Image.new("RGB", (8, 8), (255, 0, 0)), Image.new("RGB", (8, 8), (9, 9, 9))
    file = io.BytesIO()
    red.save(file, "MPO", save_all=True, append_images=[grey])
    image, image_format = decode_with_format(file.getvalue())
    assert image_format == "JPEG"
    assert np.abs(image.astype(int) - np.asarray(red)).max() < 4
    file = io.BytesIO()
    red.save(file, "AVIF")
    assert decode_with_format(file.getvalue())[1] == "AVIF"


def test_whole_pixels_with_broken_metadata_are_kept() -> None:
    file = io.BytesIO()
    Image.new("RGB", (6, 4), (1, 2, 3)).save(file, "PNG", exif=b"Exif\0\0XX")
    assert decode(file.getvalue()).size == (6, 4)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0, 255], [0, 255]),
        ([0, 65535], [0, 255]),
        ([0, 10**6], [0, 255]),
        ([-1000, 1000], [0, 255]),
        ([0, 257], [0, 1]),
    ],
)
def test_32_bit_grey_outside_smaller_types_is_scaled_by_its_own_range(values: list[int], expected: list[int]) -> None:
    file = io.BytesIO()
    Image.fromarray(np.array([values], np.int32)).save(file, "TIFF")
    assert np.asarray(decode(file.getvalue()))[0, :, 0].tolist() == expected
