"""What a training was made from: parameters, data and code, as one name; and the git commit."""

import hashlib
import json
import subprocess
from typing import Any

from selftrain.code import code_digest

CODE = ("algorithms/algorithm.py", "algorithms/losses.py", "corpus/decode.py", "corpus/transforms.py", "training")
"""Code that decides what the weights become, beside the algorithm's own file."""


def fingerprint(config: dict[str, Any], seed: int, data: dict[str, str]) -> str:
    """Equal when a training would end with the same weights: a checkpoint is only resumed under the same one."""
    code = code_digest([*CODE, f"algorithms/{config['algorithm']['name']}.py"])
    return hashlib.sha256(json.dumps([config, seed, data, code], sort_keys=True).encode()).hexdigest()[:16]


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
