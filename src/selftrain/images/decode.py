"""From an image file's bytes to pixels: the one place where images are decoded.

Everything that looks at an image (ingest, training, prediction, the report) gets the same
upright 8-bit RGB pixels from here.
"""

import io
import warnings

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from selftrain.images.heif import HEIF, MISSING, is_heif, teach_pillow
from selftrain.images.orientation import UPRIGHT, orientation_of, upright
from selftrain.images.plain_jpeg import decode_plain, plain_jpeg
from selftrain.plumbing.errors import UserError, one_line

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "AVIF")
EXTENSIONS = {
    "JPEG": "jpg", "PNG": "png", "WEBP": "webp", "BMP": "bmp", "GIF": "gif", "TIFF": "tiff", "AVIF": "avif",
    HEIF: "heic",
}  # fmt: skip
READ_AS = {"MPO": "JPEG"}
"""What Pillow calls a JPEG file of several pictures, as phones make: the first is the image."""
SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".dib", ".gif", ".tif", ".tiff", ".avif"}
    | {".heic", ".heif", ".hif"}
)
"""File name endings that make a file in a folder an image; what it really is, its bytes say."""

# Ours is checked before decoding, by `max_pixels`; Pillow's own would only warn.
Image.MAX_IMAGE_PIXELS = None


Pixels = NDArray[np.uint8]
"""A decoded RGB image (H, W, 3)."""


class BrokenImage(UserError):
    """An image that cannot be used; the message is the reason, without the file's name."""


def decode(data: bytes) -> Image.Image:
    """``decode_pixels`` as Pillow has images."""
    return Image.fromarray(decode_pixels(data))


def decode_pixels(data: bytes) -> Pixels:
    """``decode_with_format`` without the format."""
    return decode_with_format(data)[0]


def decode_with_format(data: bytes, max_pixels: int | None = None) -> tuple[Pixels, str]:
    """Decode an image file to upright 8-bit RGB, (H, W, 3); the first frame of an animation. Also what format it has.

    Transparency is laid on white, 16-bit and floating-point grey are scaled to 0–255 (by their
    type's range, or by the image's own range for floats), EXIF rotation is applied.

    Raises BrokenImage with a short reason.
    """
    if not data:
        raise BrokenImage("empty file")
    plain = plain_jpeg(data)
    if plain is not None and (max_pixels is None or plain.height * plain.width <= max_pixels):
        pixels = decode_plain(data, plain.orientation)
        if pixels is not None:
            return pixels, "JPEG"
    formats = (HEIF,) if is_heif(data) else FORMATS
    if formats == (HEIF,) and not teach_pillow():
        raise BrokenImage(MISSING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(data), formats=formats) as image:
                image_format = READ_AS.get(str(image.format), str(image.format))
                width, height = image.size
                if max_pixels is not None and width * height > max_pixels:
                    raise BrokenImage(f"too large: {width}×{height} pixels, `ingest.max_pixels` is {max_pixels}")
                image.load()
                return rgb_pixels(image), image_format
    except BrokenImage:
        raise
    except UnidentifiedImageError:
        raise BrokenImage(f"not an image in a known format ({', '.join((*FORMATS, HEIF))})") from None
    # Pillow's decoders raise nearly anything on damaged files; whatever it is, it is this file's reason.
    except Exception as error:  # noqa: BLE001
        raise BrokenImage(f"cannot be decoded: {one_line(error)}") from None


def rgb_pixels(image: Image.Image) -> Pixels:
    """An opened image as upright 8-bit RGB, (H, W, 3): see ``decode_with_format``. Raises BrokenImage for NaN."""
    return upright(np.array(_to_rgb(image)), _orientation(image))


def _orientation(image: Image.Image) -> int:
    """What EXIF or XMP says; upright where they are broken, for the pixels are whole."""
    try:
        return orientation_of(image.getexif())
    # Pillow's parsers raise nearly anything on broken metadata.
    except Exception:  # noqa: BLE001
        return UPRIGHT


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        return Image.fromarray(_scaled_to_8_bits(image)).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        with_alpha = image.convert("RGBA")
        on_white = Image.new("RGBA", with_alpha.size, (255, 255, 255, 255))
        return Image.alpha_composite(on_white, with_alpha).convert("RGB")
    return image.convert("RGB")


def _scaled_to_8_bits(image: Image.Image) -> NDArray[np.uint8]:
    values = np.asarray(image, dtype=np.float64)
    if not np.isfinite(values).all():
        raise BrokenImage("holds NaN or infinite pixel values")
    if image.mode == "F":
        low, high = (0.0, 1.0) if values.min() >= 0 and values.max() <= 1 else (values.min(), values.max())
    else:
        # 16-bit grey fills its type's range; 32-bit grey says nothing of its own, unless it fits a smaller type's.
        low, high = 0.0, 255.0 if image.mode == "I" and values.max() <= 255 else 65535.0
        if values.min() < low or values.max() > high:
            low, high = values.min(), values.max()
    scaled = (values - low) * (255.0 / (high - low)) if high > low else np.zeros_like(values)
    return np.clip(np.rint(scaled), 0, 255).astype(np.uint8)
