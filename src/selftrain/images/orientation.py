"""How a camera was held: EXIF's orientation, of which 1 is upright."""

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image

UPRIGHT = 1
ORIENTATIONS = range(1, 9)
MIRRORED = {2: 1, 3: -1, 4: 0, 6: 1, 7: -1, 8: 0}
"""In what: its rows (0), its columns (1), both (-1)."""


def orientation_of(exif: Image.Exif) -> int:
    """1 to 8; upright where it says nothing, or what EXIF has not."""
    orientation = exif.get(ExifTags.Base.Orientation, UPRIGHT)
    return int(orientation) if orientation in ORIENTATIONS else UPRIGHT


def upright(pixels: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    """The pixels (H, W, 3) of a file as they are to be seen: EXIF 2.3, section 4.6.4. From 5 on rows are columns."""
    if orientation == UPRIGHT:
        return pixels
    # A quarter of NumPy's time, and most images do not need it.
    from selftrain.images.opencv import cv2

    if orientation >= 5:
        pixels = np.asarray(cv2.transpose(pixels), np.uint8)
    mirrored = MIRRORED.get(orientation)
    return pixels if mirrored is None else np.asarray(cv2.flip(pixels, mirrored), np.uint8)
