"""What MLflow serves: image files in, class, confidence and probabilities out."""

import base64
import binascii
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd

from selftrain.networks.classifier import Classifier


def file_bytes(data: str | bytes) -> bytes:
    """An image file's bytes, given as they are or in base64; no image file is base64 by itself."""
    try:
        return base64.b64decode(data, validate=True)
    except binascii.Error:
        return data if isinstance(data, bytes) else data.encode()


class ServedModel(mlflow.pyfunc.PythonModel):  # type: ignore[misc, name-defined]
    """An image classifier over image files' bytes."""

    def load_context(self, context: Any) -> None:
        """Read the timm model folder."""
        self.model = Classifier(Path(context.artifacts["model"]))

    def predict(self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """``image`` (a file's bytes; base64 in JSON) → ``label, confidence, probabilities`` (in the classes' order)."""
        probs = self.model.probabilities([file_bytes(data) for data in model_input["image"]])  # (B, C)
        return pd.DataFrame(
            {
                "label": [self.model.classes[label] for label in probs.argmax(axis=1)],
                "confidence": probs.max(axis=1),
                "probabilities": probs.tolist(),
            }
        )
