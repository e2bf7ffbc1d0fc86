"""A trained model over images as people have them: files, bytes, PIL images, arrays.

Pixels go the way that they go in ``predict``: the same decoding, the same square, the same network in eval mode.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from selftrain.images.decode import BrokenImage, Pixels, decode_pixels, rgb_pixels
from selftrain.images.transforms import clean
from selftrain.networks.models import input_square, load_model, normalization, to_input
from selftrain.plumbing.errors import UserError


class Classifier:
    """A timm model folder in eval mode on the CPU."""

    def __init__(self, folder: Path) -> None:
        """Raises UserError if the folder is not there or not whole."""
        self.network, config = load_model(folder)
        count = int(self.network.num_classes)  # type: ignore[arg-type]
        self.classes: list[str] = list(config.get("label_names") or [str(label) for label in range(count)])

    @torch.inference_mode()
    def probabilities(self, images: Sequence[Any]) -> NDArray[np.float64]:
        """(B, C) of B images: paths, files' bytes, PIL images, arrays (H, W, 3) or (H, W) of uint8.

        Raises UserError for what is no image, naming its file.
        """
        squares = np.stack([clean(_decoded(image), *input_square(self.network)) for image in images])
        inputs = to_input(torch.from_numpy(squares), *normalization(self.network), torch.device("cpu"))
        probs: NDArray[np.float64] = self.network(inputs).softmax(dim=1).double().numpy()
        return probs


def _decoded(image: Any) -> Pixels:
    if isinstance(image, Image.Image):
        return rgb_pixels(image)
    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8 or image.ndim not in (2, 3) or (image.ndim == 3 and image.shape[2] not in (3, 4)):
            raise UserError(f"an array has to be uint8, (H, W, 3) or (H, W); this is {image.dtype}, {image.shape}")
        return rgb_pixels(Image.fromarray(image))
    name = "an image's bytes" if isinstance(image, bytes) else str(image)
    try:
        return decode_pixels(image if isinstance(image, bytes) else Path(image).read_bytes())
    except FileNotFoundError:
        raise UserError(f"{name}: no such file") from None
    except OSError as error:
        raise UserError(f"{name}: cannot be read ({error.strerror or error})") from None
    except BrokenImage as error:
        raise UserError(f"{name}: {error}") from None
