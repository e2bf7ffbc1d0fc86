"""BatchNorm folded into the convolution before it: in eval mode both are one affine map, and one pass over memory.

    norm(W x + b) = (s W) x + s (b − μ) + β,    s = γ / √(σ² + ε)

Which norm follows which convolution is seen on a few images that go through the network, so that any architecture may
be folded. The folded network has to give the same logits on them, else the network stays as it is.
"""

import copy

import torch
from timm.layers.conv2d_same import Conv2dSame
from timm.layers.norm_act import BatchNormAct2d
from torch import Tensor, nn

CONVOLUTIONS = (nn.Conv2d, Conv2dSame)
NORMS = (nn.BatchNorm2d, BatchNormAct2d)
TOLERANCE = 1e-4
"""Largest difference of logits, as a share of the largest logit."""


@torch.no_grad()
def folded(model: nn.Module, image_size: int) -> nn.Module:
    """A network in eval mode with its BatchNorms folded as far as they can be; the network itself is not changed."""
    device = next(model.parameters()).device
    images = torch.randn(2, 3, image_size, image_size, generator=torch.Generator().manual_seed(0)).to(device)
    images = images.contiguous(memory_format=torch.channels_last)
    made = copy.deepcopy(model)
    pairs = _pairs(made, images)
    for convolution, norm in pairs:
        _fold(convolution, norm)
    rests = {norm: _rest(norm) for _, norm in pairs}
    for parent in list(made.modules()):
        for name, child in parent.named_children():
            if child in rests:
                setattr(parent, name, rests[child])
    logits, expected = made(images), model(images)
    same = (logits - expected).abs().max() <= TOLERANCE * expected.abs().max()
    return made if same else model


def _pairs(model: nn.Module, images: Tensor) -> list[tuple[nn.Conv2d, nn.BatchNorm2d]]:
    """Each convolution that is used once, with the norm that takes its output."""
    outputs: list[tuple[nn.Conv2d, Tensor]] = []
    taken: list[tuple[nn.BatchNorm2d, Tensor]] = []
    hooks = []
    for module in model.modules():
        if isinstance(module, nn.Conv2d) and type(module) in CONVOLUTIONS:
            hooks.append(module.register_forward_hook(lambda module, _, output: outputs.append((module, output))))
        elif isinstance(module, nn.BatchNorm2d) and type(module) in NORMS and _is_fixed(module):
            hooks.append(module.register_forward_pre_hook(lambda module, inputs: taken.append((module, inputs[0]))))
    model(images)
    for hook in hooks:
        hook.remove()
    of_output = {id(output): module for module, output in outputs}
    pairs = [(of_output[id(given)], norm) for norm, given in taken if id(given) in of_output]
    used: list[nn.Module] = [*(module for module, _ in outputs), *(norm for norm, _ in taken)]
    return [(convolution, norm) for convolution, norm in pairs if used.count(convolution) == used.count(norm) == 1]


def _is_fixed(norm: nn.BatchNorm2d) -> bool:
    return norm.track_running_stats and norm.affine


def _fold(convolution: nn.Conv2d, norm: nn.BatchNorm2d) -> None:
    assert norm.running_var is not None and norm.running_mean is not None
    scale = norm.weight / torch.sqrt(norm.running_var + norm.eps)  # (channels,)
    bias = torch.zeros_like(scale) if convolution.bias is None else convolution.bias
    convolution.weight.mul_(scale.view(-1, 1, 1, 1))
    convolution.bias = nn.Parameter(norm.bias + scale * (bias - norm.running_mean), requires_grad=False)


def _rest(norm: nn.BatchNorm2d) -> nn.Module:
    """What timm's norms do besides."""
    return nn.Sequential(norm.drop, norm.act) if isinstance(norm, BatchNormAct2d) else nn.Identity()
