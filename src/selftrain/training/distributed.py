"""Several processes, one training: torchrun's environment, averages over processes."""

import contextlib
import os
from collections.abc import Iterable, Iterator, Sequence
from typing import TypeVar

import torch
from torch import Tensor, distributed, nn

Item = TypeVar("Item")


@contextlib.contextmanager
def process_group(device: torch.device) -> Iterator[None]:
    """Join torchrun's process group, if this process was started by torchrun."""
    if "RANK" not in os.environ:
        yield
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield
    finally:
        distributed.destroy_process_group()


def rank_and_world() -> tuple[int, int]:
    """(rank, world size), from torchrun's environment."""
    return int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))


def means(values: Sequence[Tensor]) -> list[Tensor]:
    """The tensors' means over the processes, without a gradient."""
    found = [value.detach().clone() for value in values]
    average(found)
    return found


def average(tensors: Iterable[Tensor]) -> None:
    """Replace each tensor by its mean over the processes, in one message."""
    tensors = list(tensors)
    if not distributed.is_initialized() or not tensors:
        return
    flat = packed(tensors, tensors)
    distributed.all_reduce(flat)
    flat /= distributed.get_world_size()
    for tensor, mean in zip(tensors, unpacked(flat, tensors), strict=True):
        tensor.copy_(mean)


def packed(tensors: Sequence[Tensor], likes: Sequence[Tensor]) -> Tensor:
    """Tensors as one message (N,), the values of each in the order in which those of its ``like`` lie in memory.

    In any other order, those of a channels-last network would be moved for the message, and again by each of the
    optimizer's steps.
    """
    pairs = zip(tensors, likes, strict=True)
    return torch.cat([tensor.permute(_widest_first(like)).reshape(-1) for tensor, like in pairs])


def unpacked(message: Tensor, likes: Sequence[Tensor]) -> list[Tensor]:
    """``packed`` undone, without a copy: tensors of the shapes of ``likes``, laid out as they are."""
    found = []
    for values, like in zip(torch.split(message, [like.numel() for like in likes]), likes, strict=True):
        order = _widest_first(like)
        back = [order.index(dim) for dim in range(len(order))]
        found.append(values.view([like.shape[dim] for dim in order]).permute(back))
    return found


def _widest_first(tensor: Tensor) -> list[int]:
    """Dimensions, those first whose neighbours lie farthest apart."""
    return sorted(range(tensor.dim()), key=tensor.stride, reverse=True)


def summed(tensor: Tensor) -> Tensor:
    """The tensor's sum over the processes."""
    if distributed.is_initialized():
        distributed.all_reduce(tensor)
    return tensor


def gathered(value: Item) -> list[Item]:
    """Every process's value, in the order of their ranks."""
    if not distributed.is_initialized():
        return [value]
    values: list[Item | None] = [None] * distributed.get_world_size()
    distributed.all_gather_object(values, value)
    return [item for item in values if item is not None]


def share_buffers(module: nn.Module) -> None:
    """Give every process the first one's buffers (BatchNorm's statistics, which each gathers of its own images)."""
    if distributed.is_initialized():
        for buffer in module.buffers():
            distributed.broadcast(buffer, src=0)


def wait_for_all() -> None:
    """Return when every process is here."""
    if distributed.is_initialized():
        distributed.barrier()
