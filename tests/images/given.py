"""Images in memory, in the place of a corpus."""

from pathlib import Path

import numpy as np
import sklearn
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


def photographs() -> list[np.ndarray]:
    """Crops (48, 48, 3) of the two photographs that scikit-learn has."""
    folder = Path(sklearn.__file__).parent / "datasets" / "images"
    found = []
    for name in ("china.jpg", "flower.jpg"):
        photograph = Image.open(folder / name).convert("RGB")
        for left in range(0, 400, 50):
            found.append(np.asarray(photograph.crop((left, 40, left + 220, 260)).resize((48, 48))))
    return found
