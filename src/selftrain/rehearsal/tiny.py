"""A pipeline's parameters made tiny: the same runs, algorithms and policies, with nothing left to wait for."""

from collections.abc import Iterator, Mapping
from typing import Any

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
MACHINE = {"device": "cpu", "precision": "fp32", "processes": 1, "workers": 0, "threads": 1}


def tiny(values: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters of a whole pipeline, as in its file, made tiny.

    Image sizes keep their proportions, so that runs that see different sizes go on seeing different ones.
    """
    largest = max(_sizes(values), default=LARGEST)
    smaller: dict[str, Any] = {name: _tiny(value, largest) for name, value in values.items()}
    # Weights from elsewhere are made up, too: as folders.
    smaller["teachers"] = {
        **smaller.get("teachers", {}),
        **{run: {"models": [f"models/pretrained/{run}"]} for run in smaller.get("pretrained") or {}},
    }
    return smaller | {"pretrained": {}, "hardware": MACHINE, "seed": values.get("seed", 0)}


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
