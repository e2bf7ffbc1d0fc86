"""The command ``export``: a model as ONNX and as a ``torch.export`` program, each run once and compared."""

import json
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from selftrain.networks.models import input_square, load_model, normalization
from selftrain.plumbing.errors import UserError
from selftrain.tables.records import label_names

TOLERANCE = 1e-3
"""Largest difference of log-probabilities to the original that is taken for rounding."""


class Deployed(nn.Module):
    """A classifier with its normalisation inside: (B, 3, H, W) float32 in 0–1, RGB → (B, C) logits."""

    mean: Tensor  # (1, 3, 1, 1)
    std: Tensor  # (1, 3, 1, 1)

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in normalization(model))
        self.register_buffer("mean", mean)
        self.register_buffer("std", std)

    def forward(self, images: Tensor) -> Tensor:
        """Normalise and classify."""
        logits: Tensor = self.model((images - self.mean) / self.std)
        return logits


def export_formats(model_folder: Path, out: Path) -> dict[str, float]:
    """Write ``out/model.onnx`` and ``out/model.pt2``; return how far each is from the original, in log-probabilities.

    Any number of images may be given to either. The network sees the middle square of an image, ``crop_fraction`` of
    its shorter side, resized to ``image_size``. The ONNX file's metadata has both, and the ``classes``.

    Raises UserError if a library is missing or a result differs.
    """
    model, _ = load_model(model_folder)
    classes = label_names(model_folder)
    side, crop = input_square(model)
    deployed = Deployed(model).eval()
    images = torch.rand(3, 3, side, side, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected = deployed(images).log_softmax(dim=1)
    out.mkdir(parents=True, exist_ok=True)
    program = torch.export.export(deployed, (images[:2],), dynamic_shapes=({0: torch.export.Dim("batch")},))
    torch.export.save(program, out / "model.pt2")
    seen = {"classes": json.dumps(classes), "image_size": str(side), "crop_fraction": str(crop)}
    _write_onnx(deployed, images[:2], out / "model.onnx", seen)
    again = {
        "model.pt2": torch.export.load(out / "model.pt2").module()(images).detach(),
        "model.onnx": torch.from_numpy(_run_onnx(out / "model.onnx", images)),
    }
    differences = {name: float((logits.log_softmax(dim=1) - expected).abs().max()) for name, logits in again.items()}
    for name, difference in differences.items():
        if not difference <= TOLERANCE:
            raise UserError(f"{out / name}: differs from {model_folder} by {difference:.2g} in log-probabilities")
    return differences


def _write_onnx(model: nn.Module, images: Tensor, path: Path, metadata: dict[str, str]) -> None:
    try:
        import onnx
        import onnxscript  # noqa: F401, the exporter needs it
    except ImportError as error:
        raise UserError(f"ONNX export needs {error.name}; `uv pip install onnx onnxscript onnxruntime`") from None
    torch.onnx.export(
        model,
        (images,),
        path,
        input_names=["images"],
        output_names=["logits"],
        dynamic_shapes=({0: torch.export.Dim("batch")},),
        dynamo=True,
        external_data=False,
        verbose=False,
    )
    made = onnx.load(path)
    for key, value in metadata.items():
        made.metadata_props.add(key=key, value=value)
    onnx.save(made, path)


def _run_onnx(path: Path, images: Tensor) -> NDArray[np.float32]:
    try:
        import onnxruntime
    except ImportError as error:
        raise UserError(f"ONNX export needs {error.name}; `uv pip install onnxruntime`") from None
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    logits: NDArray[np.float32] = session.run(["logits"], {"images": images.numpy()})[0]
    return logits
