"""JPEG files decoded by simplejpeg: a fifth of Pillow's time for small ones, a quarter for a camera's.

Both are libjpeg-turbo, and their pixels are the same to the bit. Pillow decodes what needs a second look: a file with
CMYK or other than 8 bits, with metadata that may turn it in another way than one EXIF does, with damage of any kind.
"""

import warnings
from typing import NamedTuple

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import ExifTags, Image

from selftrain.images.orientation import UPRIGHT, orientation_of, upright

START, SCAN, APP1 = 0xD8, 0xDA, 0xE1
PLAIN_FRAMES = (0xC0, 0xC1, 0xC2)
"""Baseline, extended and progressive, with Huffman codes."""
EXIF = b"Exif\0\0"


class PlainJpeg(NamedTuple):
    """What the head of a file says: its sides as they are stored, and EXIF's orientation, 1 to 8."""

    height: int
    width: int
    orientation: int


def plain_jpeg(data: bytes) -> PlainJpeg | None:
    """The head of a JPEG file that can be decoded here; None for all others."""
    if data[:2] != bytes((0xFF, START)):
        return None
    size, exif, other, place = None, b"", b"", 2
    while place + 4 <= len(data) and data[place] == 0xFF:
        marker, length = data[place + 1], int.from_bytes(data[place + 2 : place + 4], "big")
        segment = data[place + 4 : place + 2 + length]
        if marker == SCAN:
            orientation = _orientation(exif, other)
            return None if size is None or orientation is None else PlainJpeg(*size, orientation)
        if length < 2:
            return None
        if marker == APP1 and segment.startswith(EXIF):
            if exif:  # in several segments
                return None
            exif = segment
        elif marker == APP1:
            other += segment
        elif 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            bits, height, width, channels = _frame(segment)
            if marker not in PLAIN_FRAMES or bits != 8 or channels not in (1, 3) or not height or not width:
                return None
            size = (height, width)
        place += 2 + length
    return None


def decode_plain(data: bytes, orientation: int = UPRIGHT) -> NDArray[np.uint8] | None:
    """The upright pixels (H, W, 3) of a ``plain_jpeg``; None if the decoder has anything to say of it."""
    try:
        pixels: NDArray[np.uint8] = simplejpeg.decode_jpeg(data, colorspace="RGB", strict=True)
    except ValueError:
        return None
    return upright(pixels, orientation)


def _orientation(exif: bytes, other: bytes) -> int | None:
    """1 to 8, of EXIF and of other metadata; None for what only Pillow may judge."""
    if not exif and not other:
        return UPRIGHT
    said = Image.Exif()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            said.load(exif)
    # Pillow's parser raises nearly anything on broken metadata.
    except Exception:  # noqa: BLE001
        return None
    if ExifTags.Base.Orientation not in said and b"Orientation" in other:  # Pillow looks into XMP then
        return None
    return orientation_of(said)


def _frame(head: bytes) -> tuple[int, int, int, int]:
    """(bits, height, width, channels)."""
    if len(head) < 6:
        return 0, 0, 0, 0
    return head[0], int.from_bytes(head[1:3], "big"), int.from_bytes(head[3:5], "big"), head[5]
