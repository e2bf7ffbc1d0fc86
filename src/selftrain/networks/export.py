"""A network as a timm model folder."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import timm
import torch
from torch import nn

from selftrain.networks.models import normalization


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
    model.to(memory_format=torch.contiguous_format)
    timm.models.save_for_hf(
        model,
        str(folder),
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
        safe_serialization=True,
    )
