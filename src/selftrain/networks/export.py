"""A network as a timm model folder."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from timm.models._hub import save_config_for_hf
from torch import nn

from selftrain.networks.model_noise import classifiers
from selftrain.networks.models import normalization
from selftrain.plumbing.errors import UserError


def divide_logits(model: nn.Module, temperature: float) -> None:
    """Fold a temperature into a model's last layer: what it says is then calibrated wherever it is loaded.

    Raises UserError for a model whose last layer has no weight.
    """
    check_calibrates(model)
    with torch.no_grad():
        for classifier in classifiers(model):
            for parameter in classifier.parameters(recurse=False):
                parameter.div_(temperature)


def check_calibrates(model: nn.Module) -> None:
    """Raises UserError for a model whose last layer is more than a linear one."""
    if not all(isinstance(getattr(classifier, "weight", None), torch.Tensor) for classifier in classifiers(model)):
        raise UserError("train.calibration: the model's last layer is not linear; set it to `none`")


def export_model(
    model: nn.Module,
    folder: Path,
    *,
    classes: list[str],
    image_size: int,
    crop_fraction: float,
    options: Mapping[str, Any] | None = None,
) -> None:
    """Write a timm model folder: ``config.json`` and ``model.safetensors``.

    ``timm.create_model("local-dir:<folder>", pretrained=True)`` reads it anywhere.
    """
    mean, std = normalization(model)
    folder.mkdir(parents=True, exist_ok=True)
    # Each in memory of its own: safetensors takes no weights that two layers share.
    weights = {name: value.clone(memory_format=torch.contiguous_format) for name, value in model.state_dict().items()}
    save_file(weights, folder / "model.safetensors")
    save_config_for_hf(
        model,
        str(folder / "config.json"),
        model_config={"label_names": classes},
        model_args=dict(options or {}),
        data_config={
            "input_size": (3, image_size, image_size),
            "interpolation": "bilinear",
            "crop_pct": crop_fraction,
            "crop_mode": "center",
            "mean": tuple(mean),
            "std": tuple(std),
        },
    )
