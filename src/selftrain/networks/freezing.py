"""Layers that are not trained: shallow ones, as the train–test resolution fix has it (Touvron et al. 2019, arXiv
1906.06423), or some of each step's, at random.
"""

import numpy as np
from numpy.typing import NDArray
from torch import nn

from selftrain.counters import mix
from selftrain.networks.layers import layers_of
from selftrain.plumbing.errors import UserError


def freeze_shallow(network: nn.Module, share: float) -> None:
    """Freeze a share (0–1) of a timm model's layers, counted from the input; 1 leaves its last group, the classifier.

    Frozen layers are as in evaluation: their BatchNorm statistics stay too. Their state is set by ``train_mode``.

    Raises UserError for a network that is not timm's.
    """
    if share == 0:
        return
    named, layers = dict(network.named_parameters()), layers_of(network)
    if not layers:
        raise UserError(f"train.networks: a {type(network).__name__} has no layers to freeze; leave out `frozen`")
    for layer in layers[: round(share * (len(layers) - 1))]:
        for name in layer:
            named[name].requires_grad_(False)


class RestingLayers:
    """Noise in a timm network's training: in every step each layer rests with a probability."""

    def __init__(self, network: nn.Module, probability: float, stream: int) -> None:
        """``network``'s trained parameters, in their order, are those that ``resting`` speaks of."""
        layer_of = {name: place for place, layer in enumerate(layers_of(network)) for name in layer}
        self.layers = np.array([layer_of[name] for name, value in network.named_parameters() if value.requires_grad])
        self.probability, self.stream = probability, stream

    def resting(self, step: int) -> NDArray[np.bool_]:
        """Which parameters (P,) stay as they are in a step; a function of (stream, step, layer).

        BatchNorm's statistics of a resting layer go on.
        """
        drawn = mix(self.stream, step, self.layers) / 2.0**64
        return drawn < self.probability


def train_mode(module: nn.Module) -> None:
    """Put a module into training mode, but for the layers in it that are frozen."""
    module.train()
    for part in module.modules():
        parameters = list(part.parameters())
        if parameters and not any(parameter.requires_grad for parameter in parameters):
            part.eval()
