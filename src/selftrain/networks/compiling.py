"""Networks compiled for training, in place."""

from collections.abc import Iterable

from torch import nn
from torch._functorch import config


def compile_for_training(networks: Iterable[nn.Module]) -> None:
    """Compile networks' ``forward``, so that two gradients of one forward pass can be taken."""
    # Otherwise the first gradient overwrites what the second needs; Meta Pseudo Labels may take two.
    config.donated_buffer = False
    for network in networks:
        network.compile()
