"""White-box attacks within ε of every pixel value: the paper's Section 3.4 and Figure 4."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

Network = Callable[[Tensor], Tensor]
"""From images (B, 3, S, S) with values 0–1 to logits (B, C): normalization is part of it."""


def fgsm(network: Network, images: Tensor, labels: Tensor, epsilon: float) -> Tensor:
    """Fast gradient sign: x + ε · sign ∇ₓ CE(f(x), y), clipped to 0–1.

    Goodfellow, Shlens and Szegedy 2015, arXiv 1412.6572, Section 4. ``images`` (B, 3, S, S) 0–1, ``labels`` (B,),
    ``epsilon`` on the same scale; returns images of that shape.
    """
    return (images + epsilon * _gradient(network, images, labels).sign()).clamp(0, 1)


def pgd(network: Network, images: Tensor, labels: Tensor, epsilon: float, steps: int) -> Tensor:
    """Projected gradient ascent on the loss: ``steps`` signed steps of 2.5 ε / steps, each cut back to within ε.

    Madry et al. 2018, arXiv 1706.06083, Section 2.1 and their step size; from the image itself, without a random start.
    """
    attacked = images
    for _ in range(steps):
        moved = attacked + 2.5 * epsilon / steps * _gradient(network, attacked, labels).sign()
        attacked = (images + (moved - images).clamp(-epsilon, epsilon)).clamp(0, 1)
    return attacked


def _gradient(network: Network, images: Tensor, labels: Tensor) -> Tensor:
    """∇ₓ of each image's own cross-entropy, (B, 3, S, S)."""
    inputs = images.detach().requires_grad_(True)
    loss = functional.cross_entropy(network(inputs).float(), labels, reduction="sum")
    (gradient,) = torch.autograd.grad(loss, inputs)
    return gradient
