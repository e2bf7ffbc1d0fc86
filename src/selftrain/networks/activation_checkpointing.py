"""Activations of blocks that are thrown away, and computed again for the gradient: memory for a second forward pass.

Chen et al. 2016, "Training deep nets with sublinear memory cost" (arXiv 1604.06174). A second pass has to be the first
one again: PyTorch draws its random numbers anew from the same state, and here the rows that are noised are the same,
and BatchNorm's statistics count a batch once.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from selftrain.networks.layers import blocks_of
from selftrain.networks.model_noise import ModelNoise
from selftrain.plumbing.errors import UserError


def checkpoint_activations(network: nn.Module, noise: ModelNoise, name: str) -> None:
    """Have a timm network keep each block's input alone where gradients are taken. ``name`` is its model's.

    Raises UserError for a network without blocks.
    """
    found = blocks_of(network)
    if not found:
        raise UserError(
            f"train.activation_checkpointing: '{name}' has no blocks whose input could be kept; set it to false"
        )
    for block in found:
        block.forward = partial(_checkpointed, block, block.forward, noise)


def _checkpointed(block: nn.Module, forward: Any, noise: ModelNoise, *inputs: Any, **others: Any) -> Any:
    if not torch.is_grad_enabled():
        return forward(*inputs, **others)
    contexts = partial(_contexts, block, noise)
    return checkpoint(forward, *inputs, use_reentrant=False, context_fn=contexts, **others)


def _contexts(block: nn.Module, noise: ModelNoise) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    """What the first pass and the second one run in."""
    return nullcontext(), _second_pass(block, noise, noise.rows)


@contextmanager
def _second_pass(block: nn.Module, noise: ModelNoise, rows: dict[str, torch.Tensor | None]) -> Iterator[None]:
    buffers = [(buffer, buffer.clone()) for buffer in block.buffers()]
    rows_now, noise.rows = noise.rows, rows
    try:
        yield
    finally:
        noise.rows = rows_now
        with torch.no_grad():
            for buffer, value in buffers:
                buffer.copy_(value)
