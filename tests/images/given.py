"""Images in memory, in the place of a corpus."""

import numpy as np
from PIL import Image

from selftrain.images.decode import Pixels
from selftrain.images.transforms import clean


class Given:
    """What views are made of, from PIL images."""

    def __init__(self, *images: Image.Image) -> None:
        self.images = [np.array(image) for image in images]

    def image(self, row: int) -> Pixels:
        return self.images[row]

    def square(self, row: int, size: int, crop_fraction: float) -> Pixels:
        return clean(self.images[row], size, crop_fraction)

    def another(self, uniform: float, size: int, crop_fraction: float) -> Pixels:
        return self.square(int(uniform * len(self.images)), size, crop_fraction)
