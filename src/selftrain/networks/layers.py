"""The layers of a network as timm knows them, and its blocks."""

from itertools import takewhile

from timm.models._manipulate import group_parameters
from torch import nn


def layers_of(network: nn.Module) -> list[list[str]]:
    """The names of each layer's parameters, from the input to the classifier; none if the network is not timm's."""
    if not hasattr(network, "group_matcher"):
        return []
    groups = group_parameters(network, network.group_matcher(coarse=False))  # type: ignore[operator]
    return [groups[group] for group in sorted(groups)]


def blocks_of(network: nn.Module) -> list[nn.Module]:
    """Of a network's layers, those that are a module with parts, and hold no other such layer; each once.

    A list of modules is no block, since it is never called: its members are.
    """
    names: dict[str, None] = {}
    for layer in layers_of(network):
        paths = [parameter.split(".")[:-1] for parameter in layer]
        shared = takewhile(lambda parts: len(set(parts)) == 1, zip(*paths, strict=False))
        if name := ".".join(parts[0] for parts in shared):
            names |= dict.fromkeys(_called(network, name))
    with_parts = [name for name in names if any(True for _ in network.get_submodule(name).children())]
    return [
        network.get_submodule(name)
        for name in with_parts
        if not any(other.startswith(f"{name}.") for other in with_parts)
    ]


def _called(network: nn.Module, name: str) -> list[str]:
    """The module of a name, or its nearest descendants that have a forward pass."""
    module = network.get_submodule(name)
    if type(module).forward is not nn.Module.forward:
        return [name]
    return [found for child, _ in module.named_children() for found in _called(network, f"{name}.{child}")]
