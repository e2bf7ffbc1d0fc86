"""What ingest learns of one image: its format, its size and its hashes."""

import hashlib
from typing import Any, NamedTuple

import numpy as np
import xxhash
from numpy.typing import NDArray
from PIL import Image

from selftrain.images.content import content_hash
from selftrain.images.decode import Pixels, decode_with_format
from selftrain.images.opencv import cv2


class ImageFacts(NamedTuple):
    """Facts of one decodable image, as the manifest records them."""

    format: str
    width: int
    height: int
    xxh3: int
    """Of the file's bytes: what is read is compared with it."""
    sha256: bytes
    """Of the file's bytes: names the file."""
    pixels: bytes
    """xxh3-128 of the decoded RGB pixels and the size: equal for equal pictures, however they are stored."""
    dhash: int
    """64-bit difference hash (signed, as Parquet and SQL have it): near for near-equal pictures."""
    dhash_mirrored: int
    """The mirror image's."""

    def as_row(self) -> dict[str, Any]:
        """The facts by the manifest's columns."""
        return self._asdict()


def image_facts(data: bytes, max_pixels: int) -> ImageFacts:
    """Decode an image once and take everything the manifest needs. Raises BrokenImage."""
    pixels, image_format = decode_with_format(data, max_pixels)
    height, width, _ = pixels.shape
    thumbnail = grey_thumbnail(pixels)
    return ImageFacts(
        format=image_format,
        width=width,
        height=height,
        xxh3=content_hash(data),
        sha256=hashlib.sha256(data).digest(),
        pixels=pixel_hash(pixels),
        dhash=thumbnail_hash(thumbnail),
        dhash_mirrored=thumbnail_hash(thumbnail[:, ::-1]),
    )


def pixel_hash(pixels: Pixels) -> bytes:
    """Hash of an image's size and pixels (H, W, 3), 16 bytes."""
    height, width, _ = pixels.shape
    digest = xxhash.xxh3_128(f"{width}x{height}".encode())
    digest.update(np.ascontiguousarray(pixels).data)
    return digest.digest()


def grey_thumbnail(pixels: Pixels) -> NDArray[np.int16]:
    """The image (H, W, 3) as 8 rows of 9 grey pixels, (8, 9)."""
    # OpenCV's grey is Pillow's, in a quarter of the time; bytes come and go quicker than arrays.
    grey = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
    height, width = grey.shape
    whole = Image.frombuffer("L", (width, height), grey, "raw", "L", 0, 1)
    small = whole.resize((9, 8), Image.Resampling.BILINEAR).tobytes()
    return np.frombuffer(small, np.uint8).reshape(8, 9).astype(np.int16)


def difference_hash(pixels: Pixels) -> int:
    """DHash of an image (H, W, 3)."""
    return thumbnail_hash(grey_thumbnail(pixels))


def thumbnail_hash(grey: NDArray[np.int16]) -> int:
    """DHash of a ``grey_thumbnail``: whether each pixel is darker than its right neighbour, by more than one level.

    Without that margin a clear sky's bits are noise, and a strong JPEG changes a quarter of them. Signed 64 bits.
    """
    bits = np.packbits(grey[:, :-1] + 1 < grey[:, 1:])
    return int.from_bytes(bits.tobytes(), "big", signed=True)
