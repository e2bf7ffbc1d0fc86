"""BatchNorm over the images of all processes, on every device; PyTorch's own is for GPUs alone."""

from typing import Any

import torch
from timm.layers.norm_act import BatchNormAct2d
from torch import Tensor, distributed, nn
from torch.nn.modules.batchnorm import _BatchNorm

from selftrain.plumbing.errors import UserError


class SumOverProcesses(torch.autograd.Function):
    """A tensor's sum over all processes. All of them have it, so the gradient is the sum of theirs."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:
        """Any shape → the same."""
        total = tensor.clone(memory_format=torch.contiguous_format)
        distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> Tensor:
        """The gradient by the sum → that by this process's tensor; with a gradient of its own."""
        return over_processes(slope)


def over_processes(tensor: Tensor) -> Tensor:
    """A tensor's sum over all processes, with its gradient."""
    return SumOverProcesses.apply(tensor)  # type: ignore[no-any-return]


class SyncBatchNorm(_BatchNorm):
    """BatchNorm (Ioffe and Szegedy 2015, arXiv 1502.03167) whose mean and variance are those of all processes' images.

    Its gradient goes through both, as that of one process with the whole batch would.
    """

    def forward(self, images: Tensor) -> Tensor:
        """(B, C, …) → the same shape. In training, every process has to call it as often."""
        if not self.training:
            return super().forward(images)
        values = images.to(torch.promote_types(images.dtype, torch.float32))
        others = [dim for dim in range(images.ndim) if dim != 1]
        shape = [1, -1, *[1] * (images.ndim - 2)]
        count = values.new_full((1,), images.numel() / images.shape[1])
        total = over_processes(torch.cat([values.sum(others), count]))  # (C + 1,)
        count = total[-1].detach()
        mean = (total[:-1] / count).view(shape)
        centred = values - mean
        # Two messages: the mean of squares less the square of the mean has no digits left where the mean is large.
        variance = over_processes(centred.square().sum(others)) / count  # (C,)
        self._remember(mean.detach().flatten(), variance.detach(), count)
        scale = (variance + self.eps).rsqrt()
        if self.affine:
            scale = scale * self.weight
        found = centred * scale.view(shape)
        return (found + self.bias.view(shape) if self.affine else found).to(images.dtype)

    @torch.no_grad()
    def _remember(self, mean: Tensor, variance: Tensor, count: Tensor) -> None:
        if not self.track_running_stats:
            return
        assert self.running_mean is not None and self.running_var is not None and self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        share = 1 / self.num_batches_tracked if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean, share)
        self.running_var.lerp_(variance * count / (count - 1), share)

    def _check_input_dim(self, input: Tensor) -> None:
        """It takes any number of dimensions."""


class SyncBatchNormAct2d(SyncBatchNorm, BatchNormAct2d):
    """timm's BatchNorm with the activation after it, over all processes' images."""

    def forward(self, images: Tensor) -> Tensor:
        """(B, C, H, W) → the same shape."""
        if not self.training:
            return BatchNormAct2d.forward(self, images)  # type: ignore[no-any-return, no-untyped-call]
        return self.act(self.drop(super().forward(images)))  # type: ignore[no-any-return]


SYNCHRONIZED: dict[type[nn.Module], type[nn.Module]] = {
    nn.BatchNorm1d: SyncBatchNorm,
    nn.BatchNorm2d: SyncBatchNorm,
    nn.BatchNorm3d: SyncBatchNorm,
    BatchNormAct2d: SyncBatchNormAct2d,
}


def synchronize_batch_norm(network: nn.Module) -> None:
    """Make every BatchNorm of a network one over all processes, in place: parameters and buffers stay the same tensors.

    Does nothing in one process. Raises UserError for kinds of BatchNorm that this does not know.
    """
    if not distributed.is_initialized():
        return
    for name, module in network.named_modules():
        if type(module) in SYNCHRONIZED:
            module.__class__ = SYNCHRONIZED[type(module)]
        elif isinstance(module, _BatchNorm) and not isinstance(module, SyncBatchNorm):
            raise UserError(
                f"train.sync_batchnorm: {name} is a {type(module).__name__}, which cannot be synchronized; set it to "
                "false"
            )
