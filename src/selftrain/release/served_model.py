"""What MLflow serves: image files in, class, confidence and probabilities out. MLflow runs this file as the model.

Pixels go the way they go in ``predict``: the same decoding, the same square, the same network in eval mode.
"""

import base64
import binascii
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import torch

from selftrain.corpus.decode import decode
from selftrain.corpus.transforms import clean
from selftrain.training.models import load_model, to_input


def file_bytes(data: str | bytes) -> bytes:
    """An image file's bytes, given as they are or in base64; no image file is base64 by itself."""
    try:
        return base64.b64decode(data, validate=True)
    except binascii.Error:
        return data if isinstance(data, bytes) else data.encode()


class Classifier(mlflow.pyfunc.PythonModel):  # type: ignore[misc, name-defined]
    """An image classifier over image files' bytes."""

    def load_context(self, context: Any) -> None:
        """Read the timm model folder."""
        self.model, about = load_model(Path(context.artifacts["model"]))
        self.classes = about["label_names"]
        self.pretrained = about["pretrained_cfg"]

    def predict(self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """``image`` (a file's bytes; base64 in JSON) → ``label, confidence, probabilities`` (in the classes' order)."""
        size, crop_fraction = self.pretrained["input_size"][1], self.pretrained["crop_pct"]
        images = [decode(file_bytes(data)) for data in model_input["image"]]
        squares = np.stack([np.asarray(clean(image, size, crop_fraction)) for image in images])
        inputs = to_input(
            torch.from_numpy(squares), self.pretrained["mean"], self.pretrained["std"], torch.device("cpu")
        )
        with torch.inference_mode():
            probs = self.model(inputs).softmax(dim=1).double().numpy()  # (B, C)
        best = probs.argmax(axis=1)
        return pd.DataFrame(
            {
                "label": [self.classes[label] for label in best],
                "confidence": probs.max(axis=1),
                "probabilities": probs.tolist(),
            }
        )


mlflow.models.set_model(Classifier())
