"""What a training was made from: parameters, data and code, as one name; and the git commit."""

import hashlib
import json
import subprocess
from importlib.metadata import version
from typing import Any

from selftrain.code import code_digest
from selftrain.training.config import TrainConfig

CODE = (
    "algorithms/algorithm.py",
    "algorithms/feedback.py",
    "algorithms/losses.py",
    "algorithms/soft_targets.py",
    "corpus/decode.py",
    "corpus/keys.py",
    "corpus/manifest.py",
    "corpus/reader.py",
    "corpus/transforms.py",
    "counters.py",
    "predictions/selection.py",
    "predictions/table.py",
    "training",
)
"""Code that decides what the weights become, beside the algorithm's own file: what dvc.yaml has for ``train``."""


def fingerprint(
    config: dict[str, Any], phases: list[TrainConfig], seed: int, data: dict[str, str], arithmetic: list[bool]
) -> str:
    """Equal when a training would end with the same weights: a checkpoint is only resumed under the same one.

    ``arithmetic``: whether it is in bf16, whether it is compiled.
    """
    algorithms = sorted({f"algorithms/{phase.algorithm.name}.py" for phase in phases})
    libraries = [version("torch"), version("timm"), version("pillow")]
    made_of = [config, seed, data, arithmetic, code_digest([*CODE, *algorithms]), libraries]
    return hashlib.sha256(json.dumps(made_of, sort_keys=True).encode()).hexdigest()[:16]


def git_commit() -> str:
    """The commit of this folder's repository, with ``+changes`` if tracked files differ; empty outside of one."""
    head = _git("rev-parse", "--verify", "--quiet", "HEAD")
    changed = head and _git("status", "--porcelain", "--untracked-files=no")
    return f"{head}+changes" if changed else head


def _git(*arguments: str) -> str:
    try:
        return subprocess.run(["git", *arguments], capture_output=True, text=True, check=False).stdout.strip()
    except FileNotFoundError:
        return ""
