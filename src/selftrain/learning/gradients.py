"""Labels drawn from a distribution, and what gradients say of one another: the mathematics of feedback."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor, Partial

from selftrain.learning.runtime import Gradient


def sampled_labels(logits: Tensor, uniforms: Tensor) -> Tensor:
    """Labels (B,) drawn from softmax(logits), logits (B, C); each by its own uniform (B,), a number from 0 to 1.

    They are drawn by the inverse of the cumulative distribution: equal uniforms give equal labels on every device.
    """
    # Apple's GPUs have no float64.
    held = logits.detach().cpu() if logits.device.type == "mps" else logits.detach()
    cumulative = held.double().softmax(dim=1).cumsum(dim=1)[:, :-1]
    return (uniforms[:, None].to(held.device) >= cumulative).sum(dim=1).to(logits.device)


def dot_product(one: Gradient, other: Gradient) -> Tensor:
    """⟨one, other⟩ over all parameters, a scalar; parameters that a loss does not touch have no part in it.

    Of gradients that processes share out, it is that of the whole ones, and all processes have to call it.
    """
    pairs = [(a, b) for a, b in zip(one, other, strict=True) if a is not None and b is not None]
    total = torch.stack([(own_share(a) * own_share(b)).sum() for a, b in pairs]).sum()
    mesh = next((a.device_mesh for a, _ in pairs if isinstance(a, DTensor)), None)
    return total if mesh is None else DTensor.from_local(total, mesh, [Partial()]).full_tensor()


def own_share(tensor: Tensor) -> Tensor:
    """This process's share of a tensor, in the same memory; the tensor if it is whole."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def cosine(one: Gradient, other: Gradient) -> Tensor:
    """The cosine of the angle between two gradients, a scalar from -1 to 1; 0 if one of them is 0."""
    # Each by itself: the product of two squares is zero in float32 long before a gradient is.
    norms = [dot_product(vector, vector).sqrt() for vector in (one, other)]
    least = torch.finfo(norms[0].dtype).tiny
    return dot_product(
        *(_scaled(vector, 1 / norm.clamp(min=least)) for vector, norm in zip((one, other), norms, strict=True))
    )


def _scaled(gradient: Gradient, factor: Tensor) -> Gradient:
    return tuple(None if slope is None else slope * factor for slope in gradient)


def plain_step(parameters: Sequence[Tensor], gradient: Gradient, learning_rate: float) -> list[Tensor]:
    """θ − η·g."""
    return [
        parameter.detach() if slope is None else parameter.detach() - learning_rate * slope.detach()
        for parameter, slope in zip(parameters, gradient, strict=True)
    ]
