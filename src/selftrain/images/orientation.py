"""How a camera was held: EXIF's orientation, of which 1 is upright."""

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image

UPRIGHT = 1
ORIENTATIONS = range(1, 9)


def orientation_of(exif: Image.Exif) -> int:
    """1 to 8; upright where it says nothing, or what EXIF has not."""
    orientation = exif.get(ExifTags.Base.Orientation, UPRIGHT)
    return int(orientation) if orientation in ORIENTATIONS else UPRIGHT


def upright(pixels: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    """The pixels (H, W, 3) of a file as they are to be seen: EXIF 2.3, section 4.6.4. From 5 on rows are columns."""
    if orientation == UPRIGHT:
        return pixels
    whole = pixels.view("V3")[..., 0]  # (H, W): three bytes are copied at once, in half the time
    if orientation >= 5:
        whole = whole.T
    if orientation in (3, 4, 7, 8):
        whole = whole[::-1]
    if orientation in (2, 3, 6, 7):
        whole = whole[:, ::-1]
    return np.ascontiguousarray(whole).view(np.uint8).reshape(*whole.shape, 3)
