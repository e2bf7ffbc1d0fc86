"""Networks: made by timm's name, exported as and read back from timm model folders."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from selftrain.networks import ensemble as _ensemble  # noqa: F401, they are registered
from selftrain.networks import wide_efficientnet as _wide_efficientnet  # noqa: F401
from selftrain.networks import wide_resnet as _wide_resnet  # noqa: F401
from selftrain.networks.weights import TIMM, weights_arguments
from selftrain.plumbing.errors import UserError, one_line
from selftrain.plumbing.files import read_json
from selftrain.plumbing.sections import did_you_mean


def check_model_name(name: str, parameter: str = "train.model") -> None:
    """Raises UserError, which names the parameter, for a name that timm does not know."""
    architecture, of_weights, _ = name.partition(".")
    if not timm.is_model(architecture):
        raise UserError(f"{parameter}: timm knows no model '{name}'; {did_you_mean(architecture, timm.list_models())}")
    if of_weights and name not in (known := timm.list_pretrained(f"{architecture}.*")):
        raise UserError(f"{parameter}: timm knows no '{name}'; {did_you_mean(name, known)}")


def create_model(
    name: str,
    num_classes: int,
    image_size: int,
    *,
    weights: str | None = None,
    stochastic_depth: float = 0.0,
    options: Mapping[str, Any] | None = None,
) -> nn.Module:
    """A timm model, with its own ``options``; ``stochastic_depth`` is the drop probability of its last block, falling
    linearly to the first.

    ``weights`` is what to start from, as ``train.weights`` says it: see ``weights.py``. A model made for one size of
    image takes weights of another. Dropout is ``ModelNoise``'s.

    Raises UserError for names that timm does not know, noise that the architecture does not have, and weights that are
    missing, damaged, or of another architecture.
    """
    check_model_name(name)
    timm_options = dict(options or {})
    given: dict[str, Any] = {"drop_path_rate": stochastic_depth}
    if timm.get_pretrained_cfg_value(name, "fixed_input_size"):
        given["img_size"] = image_size
    try:
        source, start = (name, {}) if weights is None else weights_arguments(weights, name, timm_options)
        return timm.create_model(
            source,
            num_classes=num_classes,
            **start,
            **{key: value for key, value in given.items() if value} | timm_options,
        )
    except TypeError as error:
        if "drop_path_rate" in str(error):
            raise UserError(f"train.noise.stochastic_depth: '{name}' has none; set it to 0") from None
        if timm_options:
            raise UserError(f"train.model_options: '{name}' does not take them: {error}") from None
        raise
    except (RuntimeError, OSError, SafetensorError) as error:
        if weights is None:
            raise
        reason = one_line(error)
        if isinstance(error, OSError) or weights == TIMM:
            raise UserError(f"train.weights: the weights of '{name}' ({weights}) cannot be had: {reason}") from None
        raise UserError(f"train.weights: {weights} cannot start a '{name}' with these options: {reason}") from None


def without_memory(name: str, options: Mapping[str, Any], image_size: int) -> nn.Module:
    """A model of two classes whose weights take no memory: shapes alone go through it."""
    with torch.device("meta"):
        return create_model(name, 2, image_size, options=options)


def check_takes(network: nn.Module, name: str, images: int, image_size: int) -> None:
    """Raises UserError if a model (``without_memory``) cannot be trained on so many images of this size at a time."""
    try:
        network.train()(torch.empty(images, 3, image_size, image_size, device="meta"))
    # Every architecture says in its own way that shapes do not fit.
    except (ValueError, AssertionError, RuntimeError, IndexError, TypeError) as error:
        reason = one_line(error)
        raise UserError(
            f"train: '{name}' cannot be trained on {images} images of {image_size} pixels at a time ({reason}); change "
            "`batch_size`, `image_size` or `model`"
        ) from None


def load_model(folder: Path, stochastic_depth: float = 0.0) -> tuple[nn.Module, dict[str, Any]]:
    """A model and its ``config.json`` from a timm model folder, in eval mode.

    Raises UserError if the folder is not there or not whole.
    """
    if not (folder / "config.json").is_file():
        raise UserError(f"{folder}: holds no model, which has a config.json; `dvc repro` makes those of the runs")
    config = read_json(folder / "config.json", "dvc repro")
    noise: dict[str, Any] = {"drop_path_rate": stochastic_depth} if stochastic_depth else {}
    try:
        model = timm.create_model(f"local-dir:{folder}", pretrained=True, **noise)
    except (RuntimeError, OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        reason = one_line(error)
        raise UserError(f"{folder}: not a whole timm model folder ({reason}); train it again") from None
    return model.eval(), config


def normalization(model: nn.Module) -> tuple[list[float], list[float]]:
    """(mean, std) by channel that the model's inputs are normalised with, for values 0–1."""
    config = _pretrained_config(model)
    return [float(value) for value in config["mean"]], [float(value) for value in config["std"]]


def input_square(model: nn.Module) -> tuple[int, float]:
    """(pixels a side, share of the image's shorter side that is seen) of the model's inputs."""
    config = _pretrained_config(model)
    return int(config["input_size"][1]), float(config.get("crop_pct", 1.0))


def to_input(images: Tensor, mean: list[float], std: list[float], device: torch.device) -> Tensor:
    """(B, H, W, 3) of values 0–255 → (B, 3, H, W) float32 on ``device``, normalised, in channels-last memory."""
    images = images.to(device, non_blocking=True)
    offset = torch.tensor(mean, device=device).mul_(255)
    scale = torch.tensor(std, device=device).mul_(255)
    return images.float().sub_(offset).div_(scale).permute(0, 3, 1, 2)


def in_float32(features: Any) -> Any:
    """A network's features; an ensemble has a list of its members', and some networks a mapping."""
    if isinstance(features, Mapping):
        return {name: in_float32(value) for name, value in features.items()}
    if isinstance(features, (list, tuple)):
        return type(features)(map(in_float32, features))
    is_half = isinstance(features, torch.Tensor) and features.is_floating_point()
    return features.float() if is_half else features


def _pretrained_config(model: nn.Module) -> dict[str, Any]:
    return dict(model.pretrained_cfg)  # type: ignore[arg-type]
