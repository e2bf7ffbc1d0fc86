"""Pieces of real photographs."""

import numpy as np
from PIL import Image

SIDE = 64


def tiles() -> list[Image.Image]:
    """Pieces of two photographs that do not overlap, those with next to nothing on them (sky) left out."""
    from sklearn.datasets import load_sample_image

    found = []
    for name in ("china.jpg", "flower.jpg"):
        photo = Image.fromarray(load_sample_image(name))
        for left in range(0, photo.width - SIDE, SIDE):
            for top in range(0, photo.height - SIDE, SIDE):
                tile = photo.crop((left, top, left + SIDE, top + SIDE))
                grey = np.asarray(tile.convert("L"), float)
                if np.abs(np.diff(grey)).mean() > 4:
                    found.append(tile)
    return found
