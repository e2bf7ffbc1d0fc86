"""A trained model, ready to classify images."""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from selftrain.plumbing.errors import UserError

if TYPE_CHECKING:
    import polars as pl


def load(folder: str | Path) -> "Model":
    """A model from its folder, such as ``models/noisy_student/best``, or any timm model folder.

    Raises UserError if the folder is not there or not whole.
    """
    return Model(Path(folder))


class Model:
    """An image classifier in eval mode on the CPU."""

    def __init__(self, folder: Path) -> None:
        from selftrain.networks.classifier import Classifier

        self.folder, self._classifier = folder, Classifier(folder)
        self.classes: list[str] = self._classifier.classes

    def __repr__(self) -> str:
        return f"Model({str(self.folder)!r}, {len(self.classes)} classes)"

    def predict(self, images: "Iterable[Any]", batch_size: int = 64) -> "pl.DataFrame":
        """``label, confidence, probabilities`` of each image, in their order; probabilities in the classes' order.

        An image is a path, a file's bytes, a PIL image, or an array (H, W, 3) or (H, W) of uint8. Raises UserError for
        a file that is no image, naming it.
        """
        import numpy as np
        import polars as pl
        from PIL import Image

        one_array = isinstance(images, np.ndarray) and images.ndim < 4
        if isinstance(images, (str, bytes, Path, Image.Image)) or one_array:
            raise UserError("predict: expected a list of images; put the one image into a list")
        given = list(images)
        batches = [given[start : start + batch_size] for start in range(0, len(given), batch_size)]
        empty = np.empty((0, len(self.classes)))
        probs = np.concatenate([empty, *(self._classifier.probabilities(batch) for batch in batches)])  # (N, C)
        columns = {
            "label": [self.classes[label] for label in probs.argmax(axis=1)],
            "confidence": probs.max(axis=1, initial=0),
            "probabilities": probs.tolist(),
        }
        return pl.DataFrame(columns, schema_overrides={"label": pl.String, "probabilities": pl.List(pl.Float64)})
