"""Activations of blocks that are thrown away, and computed again for the gradient: memory for a second forward pass.

Chen et al. 2016, "Training deep nets with sublinear memory cost" (arXiv 1604.06174). A later pass has to be the first
one again: PyTorch draws its random numbers anew from the same state, and here the rows that are noised are the same,
and BatchNorm's statistics count a batch once.
"""

from contextlib import AbstractContextManager, nullcontext
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
    """What the first pass and the later ones run in."""
    return nullcontext(), _LaterPass(block, noise)


class _LaterPass:
    """The rows that are noised now, once more; there is a pass for each loss whose gradient is taken."""

    def __init__(self, block: nn.Module, noise: ModelNoise) -> None:
        self.block, self.noise, self.rows = block, noise, noise.rows

    def __enter__(self) -> None:
        self.buffers = [(buffer, buffer.clone()) for buffer in self.block.buffers()]
        self.rows_outside, self.noise.rows = self.noise.rows, self.rows

    def __exit__(self, *_: object) -> None:
        self.noise.rows = self.rows_outside
        with torch.no_grad():
            for buffer, value in self.buffers:
                buffer.copy_(value)
        del self.buffers
