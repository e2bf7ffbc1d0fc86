"""A pipeline's parameters made tiny: the same runs, algorithms and policies, with nothing left to wait for."""

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import PurePosixPath
from typing import Any

from selftrain.params.runs import RUN_SECTIONS

MODEL = "test_resnet"
LARGEST, SMALLEST = 32, 16
"""Pixels a side of the largest images, to which all sizes are scaled, and of the smallest."""
STEPS = 2
AT_MOST = {
    "batch_size": 4, "unlabeled_ratio": 2, "validate_every": 1, "patience": 1, "per_class": 4, "examples": 4,
    "passes": 1, "features": 2, "images": 5,
}  # fmt: skip
"""Of whole numbers by these names, wherever they stand; those whose names end in ``_steps`` are at most 1."""
LEFT_OUT = ("model_options", "weights", "schedule_from", "embeddings_layer", "compile")
"""What belongs to the real networks."""
MADE_UP = "made_up"
"""Folder of images that stand for a user's."""
MACHINE = {"device": "cpu", "precision": "fp32", "processes": 1, "workers": 0, "threads": 1}


def largest_size(pipelines: Iterable[Mapping[str, Any]]) -> int:
    """Pixels a side of the largest images that these pipelines see."""
    return max((size for values in pipelines for size in _sizes(values)), default=LARGEST)


def tiny(values: Mapping[str, Any], largest: int) -> dict[str, Any]:
    """Parameters of a whole pipeline, as in its file, made tiny.

    Image sizes keep their proportions to ``largest``, so that runs that see different sizes go on seeing different
    ones. All paths lead into the project.
    """
    found: dict[str, Any] = {}
    for name, section in values.items():
        if name in RUN_SECTIONS:  # what stands there are names that a user chose
            found[name] = {run: _tiny(entry, largest) for run, entry in (section or {}).items()}
        else:
            found[name] = section if name == "tested" else _tiny(section, largest)
    for section in ("teachers", "ensembles"):
        for entry in found.get(section, {}).values():
            entry["models"] = [_inside(model) for model in entry["models"]]
    # Weights from elsewhere are made up, too: as folders.
    made_up = {run: {"models": [f"models/elsewhere/{run}"]} for run in found.get("pretrained", {})}
    found["teachers"] = found.get("teachers", {}) | made_up
    if found.get("robustness"):
        found["robustness"] |= _folders(values["robustness"])
    return found | {"pretrained": {}, "hardware": MACHINE, "seed": values.get("seed", 0)}


def _inside(model: str) -> str:
    """A model's folder in the project: itself, or one that stands for it."""
    path = PurePosixPath(model)
    inside = not path.is_absolute() and ".." not in path.parts and path.parts[0] == "models"
    return model if inside else f"models/elsewhere/{hashlib.sha256(model.encode()).hexdigest()[:12]}"


def _folders(robustness: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if robustness.get("folders"):
        found["folders"] = {name: f"{MADE_UP}/folder{place}" for place, name in enumerate(robustness["folders"])}
    if robustness.get("corruptions_folder"):
        found["corruptions_folder"] = f"{MADE_UP}/corruptions"
    return found


def _tiny(value: Any, largest: int, name: str = "") -> Any:
    if isinstance(value, Mapping):
        return _tiny_section(value, largest)
    if name == "model":
        return MODEL
    if name == "image_size" and value is not None:
        return max(SMALLEST, round(value * LARGEST / largest))
    if name == "threshold":
        return 0.0
    if name in ("fgsm", "pgd"):
        return value[:1]
    is_whole = isinstance(value, int) and not isinstance(value, bool)
    if is_whole and name in AT_MOST:
        return min(value, AT_MOST[name])
    return min(value, 1) if is_whole and name.endswith("_steps") else value


def _tiny_section(section: Mapping[str, Any], largest: int) -> dict[str, Any]:
    # The weights of an ensemble's members are a list of numbers, and stay.
    kept = {name: value for name, value in section.items() if name not in LEFT_OUT or isinstance(value, list)}
    found = {name: _tiny(value, largest, name) for name, value in kept.items() if name not in ("steps", "epochs")}
    if {"steps", "epochs"} & kept.keys():
        found["steps"] = 1 if "decay" in kept else STEPS
    return found


def _sizes(values: Any) -> Iterator[int]:
    if isinstance(values, Mapping):
        if isinstance(values.get("image_size"), int):
            yield values["image_size"]
        for value in values.values():
            yield from _sizes(value)
