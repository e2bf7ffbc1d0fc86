import io
import warnings

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageOps

from selftrain.images.decode import BrokenImage, decode, decode_pixels, decode_with_format, rgb_pixels
from selftrain.images.plain_jpeg import PlainJpeg, decode_plain, plain_jpeg


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
            assert plain_jpeg(data) == PlainJpeg(image.height, image.width, 1)
            expected = np.array(Image.open(io.BytesIO(data)).convert("RGB"))
            assert np.array_equal(decode_plain(data), expected)
            assert np.array_equal(decode_pixels(data), expected)
            assert np.array_equal(decode(data), expected)


def pillows(data: bytes) -> np.ndarray:
    """The upright pixels by Pillow alone."""
    return np.array(ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB"))


def with_segment(data: bytes, marker: int, content: bytes) -> bytes:
    """A JPEG file with one more segment at its beginning."""
    return data[:2] + bytes((0xFF, marker)) + (len(content) + 2).to_bytes(2, "big") + content + data[2:]


def xmp(orientation: int) -> bytes:
    return b'http://ns.adobe.com/xap/1.0/\0<x:xmpmeta><rdf tiff:Orientation="%d"/></x:xmpmeta>' % orientation


@pytest.mark.parametrize("orientation", [None, *range(11), 65535])
def test_a_cameras_picture_is_turned_as_pillow_turns_it(orientation: int | None) -> None:
    image = random_image(np.random.default_rng(0), "RGB")
    exif = Image.Exif()
    exif[ExifTags.Base.Make] = "a camera"
    if orientation is not None:
        exif[ExifTags.Base.Orientation] = orientation
    data = jpeg(image, exif=exif)
    found = PlainJpeg(image.height, image.width, orientation if orientation in range(1, 9) else 1)
    assert plain_jpeg(data) == found
    assert np.array_equal(decode_plain(data, found.orientation), pillows(data))
    assert np.array_equal(decode_pixels(data), pillows(data))
    # XMP is asked where EXIF has none, and never otherwise.
    told_twice = with_segment(data, 0xE1, xmp(8))
    assert np.array_equal(decode_pixels(told_twice), pillows(told_twice))
    assert plain_jpeg(told_twice) == (None if orientation is None else found)
    assert plain_jpeg(with_segment(data, 0xE1, b"http://ns.adobe.com/xap/1.0/\0<x:xmpmeta/>")) == found


@pytest.mark.parametrize("transform", [None, 0, 1])
def test_what_photoshop_marks_is_as_bright_as_ever(transform: int | None) -> None:
    """Adobe's marker says whether three channels are RGB (0) or YCbCr (1)."""
    image = random_image(np.random.default_rng(3), "RGB")
    data = jpeg(image, keep_rgb=transform == 0, quality=95)
    if transform == 1:
        data = with_segment(data, 0xEE, b"Adobe\0\x64\0\0\0\0\x01")
    assert (b"Adobe" in data) == (transform is not None)
    found = plain_jpeg(data)
    assert found is not None
    assert np.array_equal(decode_pixels(data), pillows(data))
    assert np.abs(decode_pixels(data).mean((0, 1)) - np.array(image).mean((0, 1))).max() < 5


def test_what_needs_a_second_look_is_pillows() -> None:
    image = random_image(np.random.default_rng(0), "RGB")
    cmyk = jpeg(image.convert("CMYK"))
    assert plain_jpeg(cmyk) is None
    assert np.array_equal(decode_pixels(cmyk), pillows(cmyk))
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    twice = with_segment(jpeg(image, exif=exif), 0xE1, exif.tobytes())
    assert plain_jpeg(twice) is None
    broken = with_segment(jpeg(image), 0xE1, b"Exif\0\0" + b"MM\0*" + b"\xff" * 8)
    assert np.array_equal(decode_pixels(broken), pillows(jpeg(image)))
    file = io.BytesIO()
    image.save(file, "PNG")
    assert plain_jpeg(file.getvalue()) is None
    assert np.array_equal(decode_pixels(file.getvalue()), image)


def test_damage_is_never_believed() -> None:
    rng = np.random.default_rng(1)
    whole = jpeg(random_image(rng, "RGB"), quality=90)
    for cut in range(2, len(whole), 7):
        assert decode_plain(whole[:cut]) is None
    for length in (0, 1, 3, 11):
        assert plain_jpeg(whole[:length]) is None
    with pytest.raises(BrokenImage):
        decode_pixels(whole[: len(whole) // 2])
    with pytest.raises(BrokenImage, match="empty"):
        decode_pixels(b"")


def test_metadata_that_cannot_be_written_again_turns_the_picture_too() -> None:
    """Pillow's own turning writes the rest of the metadata anew, and leaves the picture as it lies where it fails."""
    image = random_image(np.random.default_rng(0), "RGB")
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation], exif[ExifTags.Base.Make] = 6, "Maker"
    whole = jpeg(image, exif=exif)
    rng = np.random.default_rng(5)
    first, last = whole.index(b"Exif"), whole.index(b"Maker") + 5
    turned = 0
    for _ in range(400):
        data = bytearray(whole)
        data[rng.integers(first, last)] = rng.integers(256)
        head = plain_jpeg(bytes(data))
        pixels = decode_pixels(bytes(data))
        with warnings.catch_warnings(action="ignore"), Image.open(io.BytesIO(data)) as opened:
            assert np.array_equal(pixels, rgb_pixels(opened))
        turned += head is not None and head.orientation == 6 and pixels.shape[0] == image.width
    assert turned > 100


def test_too_large_a_picture_is_told_from_its_head() -> None:
    with pytest.raises(BrokenImage, match=r"too large: 100×80"):
        decode_with_format(jpeg(Image.new("RGB", (100, 80))), max_pixels=7999)
    assert decode_with_format(jpeg(Image.new("RGB", (100, 80))), max_pixels=8000)[0].shape == (80, 100, 3)
