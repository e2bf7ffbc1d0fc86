"""Checkpoints: whole, checked, and unable to run code.

A checkpoint is one safetensors file. Anything nested (an optimizer's state) is split into its tensors and a
JSON skeleton that says where they go; the header also holds a hash of the skeleton and the tensors, since a flipped bit
would load without a word.
"""

import json
from pathlib import Path
from typing import Any

import torch
import xxhash
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from selftrain.plumbing.errors import UserError
from selftrain.plumbing.files import atomic_path

KEPT_CHECKPOINTS = 2
DAMAGE = (SafetensorError, OSError, ValueError, TypeError, KeyError, RuntimeError, OverflowError, MemoryError)
"""What reading a damaged safetensors file raises: what its header says may be anything."""
_TENSOR = "__tensor__"
_NUMBERED = "__numbered__"
_TUPLE = "__tuple__"
_DTYPE = "__dtype__"


def save_checkpoint(folder: Path, step: int, state: dict[str, Any]) -> None:
    """Write ``state`` (nested dicts and lists of tensors and plain values) as the checkpoint of a step."""
    tensors: dict[str, Tensor] = {}
    skeleton = json.dumps(_take_apart(state, "state", tensors))
    metadata = {"state": skeleton, "hash": _hash(skeleton, tensors)}
    with atomic_path(folder / f"step-{step:010d}.safetensors") as temporary:
        save_file(tensors, temporary, metadata)
    for old in sorted(folder.glob("step-*.safetensors"))[:-KEPT_CHECKPOINTS]:
        old.unlink()


def load_checkpoint(folder: Path) -> dict[str, Any] | None:
    """The newest whole checkpoint in a folder, on the CPU; None if there is none.

    Damaged ones are named and passed over; if all are, raises UserError.
    """
    if not folder.is_dir():
        return None
    paths = sorted(folder.glob("step-*.safetensors"), reverse=True)
    for path in paths:
        state = _load(path)
        if state is not None:
            return state
        print(f"{path}: damaged checkpoint, passed over")
    if paths:
        raise UserError(f"{folder}: every checkpoint is damaged; remove the folder to train from the start")
    return None


def damaged_checkpoints(folder: Path) -> list[Path]:
    """The checkpoints of a folder that cannot be loaded."""
    return [path for path in sorted(folder.glob("step-*.safetensors")) if _load(path) is None]


def _load(path: Path) -> dict[str, Any] | None:
    """The state of a checkpoint; None if the file is damaged, wherever it is."""
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except DAMAGE:
        return None
    if metadata.get("hash") != _hash(metadata.get("state", ""), tensors):
        return None
    state = _put_together(json.loads(metadata["state"]), tensors)
    assert isinstance(state, dict)
    return state


def _hash(skeleton: str, tensors: dict[str, Tensor]) -> str:
    digest = xxhash.xxh3_128(skeleton.encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data if tensor.numel() else b"")
    return digest.hexdigest()


def _take_apart(value: Any, name: str, tensors: dict[str, Tensor]) -> Any:
    """Move tensors to ``tensors``; return what JSON can hold of the rest."""
    if isinstance(value, Tensor):
        tensors[name] = value.detach().cpu().contiguous().clone()
        return {_TENSOR: name}
    if isinstance(value, dict):
        parts = {str(key): _take_apart(item, f"{name}.{key}", tensors) for key, item in value.items()}
        numbered = bool(value) and all(isinstance(key, int) for key in value)
        return {_NUMBERED: parts} if numbered else parts
    if isinstance(value, (list, tuple)):
        items = [_take_apart(item, f"{name}.{place}", tensors) for place, item in enumerate(value)]
        return {_TUPLE: items} if isinstance(value, tuple) else items
    if isinstance(value, torch.dtype):
        return {_DTYPE: str(value).removeprefix("torch.")}
    assert value is None or isinstance(value, (bool, int, float, str)), f"{name} is a {type(value).__name__}"
    return value


def _put_together(skeleton: Any, tensors: dict[str, Tensor]) -> Any:
    """The inverse of ``_take_apart``."""
    if isinstance(skeleton, dict):
        if _TENSOR in skeleton:
            return tensors[skeleton[_TENSOR]]
        if _TUPLE in skeleton:
            return tuple(_put_together(item, tensors) for item in skeleton[_TUPLE])
        if _DTYPE in skeleton:
            return getattr(torch, skeleton[_DTYPE])
        if _NUMBERED in skeleton:
            return {int(key): _put_together(item, tensors) for key, item in skeleton[_NUMBERED].items()}
        return {key: _put_together(item, tensors) for key, item in skeleton.items()}
    if isinstance(skeleton, list):
        return [_put_together(item, tensors) for item in skeleton]
    return skeleton
