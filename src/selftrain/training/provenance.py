"""What a training was made from: parameters, data and code, as one name."""

import hashlib
import json
from collections.abc import Iterable
from importlib.metadata import version
from typing import Any

from selftrain.code import code_digest
from selftrain.params.train import TrainConfig


def fingerprint(
    config: dict[str, Any], phases: list[TrainConfig], seed: int, data: dict[str, str], arithmetic: list[bool]
) -> str:
    """Equal when a training would end with the same weights: a checkpoint is only resumed under the same one.

    ``arithmetic``: whether it is in bf16, whether it is compiled.
    """
    libraries = [version("torch"), version("timm"), version("pillow")]
    made_of = [config, seed, data, arithmetic, code_digest("train", modules_of(phases)), libraries]
    return hashlib.sha256(json.dumps(made_of, sort_keys=True).encode()).hexdigest()[:16]


def modules_of(phases: Iterable[TrainConfig]) -> list[str]:
    """The modules that a training finds by name: its phases' algorithms and RandAugment's policies."""
    names = {f"algorithms.{phase.algorithm.name}" for phase in phases}
    return sorted(names | {f"images.policies.{phase.noise.randaugment_policy}" for phase in phases})
