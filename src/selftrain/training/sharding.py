"""Networks whose weights, gradients and optimizer states are shared out among processes, by PyTorch's FSDP2.

Zhao et al. 2023, "PyTorch FSDP" (arXiv 2304.11277); Rajbhandari et al. 2020, "ZeRO" (arXiv 1910.02054), stage 3. A
block has its whole weights while it is computed, and no longer. What leaves the loop is whole: checkpoints, and the
networks that are validated and exported.
"""

import copy
import re
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, distribute_tensor

from selftrain.learning.runtime import Gradient, added
from selftrain.networks.layers import blocks_of
from selftrain.training.distributed import average

OTHER_STEPS = re.compile(r"^(lookahead_)?c|adahessian|adamp|sgdp|mars|muon|kron|lamb|novograd|fused|bnb", re.IGNORECASE)
"""Timm's optimizers (``c``: the cautious ones) whose step fails where weights are shared out, or is another one; a test
takes steps with all the others."""
ENTRANCES = ("forward_features", "forward_head", "forward_intermediates")
"""Methods by which a timm network is entered beside ``forward``."""


def shard(network: nn.Module) -> None:
    """Keep this process's share of a timm network alone, in place, block by block. All processes have to call it.

    No whole weights stay after a forward pass: the next one would take them, whatever a step had made of them.
    """
    device = next(network.parameters()).device
    mesh = init_device_mesh(device.type, (distributed.get_world_size(),))
    for block in blocks_of(network):
        fully_shard(block, mesh=mesh, reshard_after_forward=True)
    fully_shard(network, mesh=mesh, reshard_after_forward=True)
    for name in ENTRANCES:
        if hasattr(network, name):
            register_fsdp_forward_method(network, name)


class WholeNetworks:
    """Copies of networks that are to be shared out, for what needs them whole now and then; on the CPU meanwhile."""

    def __init__(self, networks: Iterable[nn.Module]) -> None:
        self._copies = {network: copy.deepcopy(network).cpu() for network in networks}

    def of(self, network: nn.Module, sharded: nn.Module | None = None) -> nn.Module:
        """A network's copy with its weights of now, or those of another that is shared out. All processes call it."""
        source = sharded or network
        found = copy.deepcopy(self._copies[network])
        found.load_state_dict(whole(source.state_dict()))
        return found.to(next(source.parameters()).device).eval()


def sharded_gradient(
    loss: Tensor, parameters: Sequence[Tensor], so_far: Gradient | None = None, retain_graph: bool = False
) -> Gradient:
    """The loss's gradient by parameters, averaged over processes: this process's shares of it, and ``so_far`` added.

    ``torch.autograd.grad`` does not run what FSDP2 does with gradients, so this is a backward pass.
    """
    loss.backward(retain_graph=retain_graph)  # type: ignore[no-untyped-call]
    found = tuple(parameter.grad for parameter in parameters)
    average(slope for slope in found if slope is not None and not isinstance(slope, DTensor))
    for parameter in parameters:
        parameter.grad = None
    return found if so_far is None else added(so_far, found)


def whole(state: Any, kept: bool = True) -> Any:
    """Nested dicts and lists with whole tensors, on the CPU, in place of shares. All processes have to call it; those
    that do not keep what they get have empty tensors there.
    """
    if isinstance(state, DTensor):
        gathered = state.full_tensor()
        return gathered.cpu() if kept else gathered.new_empty(0)
    if isinstance(state, dict):
        return {name: whole(value, kept) for name, value in state.items()}
    if isinstance(state, (list, tuple)):
        return type(state)(whole(value, kept) for value in state)
    return state


def like(value: Tensor, other: Tensor) -> Tensor:
    """A whole tensor as ``other`` is: this process's share of it, if that is one of the same shape."""
    if not isinstance(other, DTensor) or value.shape != other.shape:
        return value
    return distribute_tensor(value.to(other.device), other.device_mesh, other.placements)


def load_whole(module: nn.Module, state: dict[str, Tensor]) -> None:
    """``load_state_dict`` of whole tensors into a module that may be shared out."""
    own = module.state_dict()
    assert own.keys() == state.keys()
    module.load_state_dict({name: like(value, own[name]) for name, value in state.items()})


def load_whole_optimizer(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """The same of an optimizer's state. Its tensors lie in memory as their parameters do, since sums in another order
    differ.
    """
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    of_parameters = {
        number: {name: _beside(v, parameters[number]) if isinstance(v, Tensor) else v for name, v in values.items()}
        for number, values in state["state"].items()
    }
    optimizer.load_state_dict(state | {"state": of_parameters})


def _beside(value: Tensor, parameter: Tensor) -> Tensor:
    if isinstance(parameter, DTensor) or value.shape != parameter.shape:
        return like(value, parameter)
    return torch.empty_like(parameter, dtype=value.dtype).copy_(value)
