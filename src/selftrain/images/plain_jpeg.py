"""JPEG files without anything special, decoded by simplejpeg: a fifth of Pillow's time for small ones.

Both are libjpeg-turbo, and their pixels are the same to the bit. Pillow decodes what needs a second look: a file with
EXIF, XMP or Adobe's marker (turned images, CMYK), with other than 8 bits, with damage of any kind.
"""

import numpy as np
import simplejpeg
from numpy.typing import NDArray

START, SCAN, APP1, APP14 = 0xD8, 0xDA, 0xE1, 0xEE
PLAIN_FRAMES = (0xC0, 0xC1, 0xC2)
"""Baseline, extended and progressive, with Huffman codes."""


def plain_size(data: bytes) -> tuple[int, int] | None:
    """(height, width) of a JPEG file that has nothing but pixels; None for all others."""
    if data[:2] != bytes((0xFF, START)):
        return None
    size, place = None, 2
    while place + 4 <= len(data) and data[place] == 0xFF:
        marker, length = data[place + 1], int.from_bytes(data[place + 2 : place + 4], "big")
        if marker == SCAN:
            return size
        if marker in (APP1, APP14) or length < 2:
            return None
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            bits, height, width, channels = _frame(data[place + 4 : place + 10])
            if marker not in PLAIN_FRAMES or bits != 8 or channels not in (1, 3) or not height or not width:
                return None
            size = (height, width)
        place += 2 + length
    return None


def decode_plain(data: bytes) -> NDArray[np.uint8] | None:
    """The pixels (H, W, 3) of a file that has a ``plain_size``; None if the decoder has anything to say of it."""
    try:
        pixels: NDArray[np.uint8] = simplejpeg.decode_jpeg(data, colorspace="RGB", strict=True)
    except ValueError:
        return None
    return pixels


def _frame(head: bytes) -> tuple[int, int, int, int]:
    if len(head) < 6:
        return 0, 0, 0, 0
    return head[0], int.from_bytes(head[1:3], "big"), int.from_bytes(head[3:5], "big"), head[5]
