"""A teacher that is run beside its student."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from selftrain.networks.models import normalization
from selftrain.plumbing.errors import UserError


class FrozenTeacher:
    """A network in eval mode, without gradients, that takes images as its student does: see ``Teacher``.

    No module: nothing that is done to the algorithm, ``train()``, optimizers, checkpoints, reaches it. It undoes the
    student's normalisation for its own, and resizes to the size that it was trained at.
    """

    def __init__(
        self, network: nn.Module, size: int, of_student: tuple[list[float], list[float]], device: torch.device
    ) -> None:
        self.size = size
        self.network = network.eval().requires_grad_(False).to(device).to(memory_format=torch.channels_last)
        statistics = normalization(network)
        (mean, std), (own_mean, own_std) = (
            [torch.tensor(part, device=device).view(-1, 1, 1) for part in parts] for parts in (of_student, statistics)
        )
        self.scale, self.offset = std / own_std, (mean - own_mean) / own_std

    @torch.no_grad()
    def log_probs(self, images: Tensor) -> Tensor:
        """Images as the student gets them, (B, 3, H, W) → log-probabilities (B, C)."""
        logits: Tensor = self.network(self._as_own(images))
        return logits.float().log_softmax(dim=1)

    @torch.no_grad()
    def features(self, images: Tensor, count: int) -> list[Tensor]:
        """The last ``count`` feature maps (B, C', H', W'), from the shallow to the deep."""
        maps: list[Tensor] = self.network.forward_intermediates(  # type: ignore[operator]
            self._as_own(images), indices=count, intermediates_only=True
        )
        return maps

    def feature_channels(self, count: int) -> list[int]:
        """Channels of these maps."""
        return feature_channels(self.network, count)

    def _as_own(self, images: Tensor) -> Tensor:
        if images.shape[-1] != self.size:
            images = functional.interpolate(images, size=(self.size, self.size), mode="bilinear", antialias=True)
        return images * self.scale + self.offset


def feature_channels(network: nn.Module, count: int) -> list[int]:
    """Channels of a timm model's last ``count`` feature maps. Raises UserError if it does not give them."""
    known = feature_maps(network, "feature_distillation")
    if len(known) < count:
        raise UserError(f"feature_distillation: features: a {type(network).__name__} has only {len(known)} of them")
    return [info["num_chs"] for info in known[-count:]]


def feature_maps(network: nn.Module, where: str) -> list[dict[str, Any]]:
    """What timm knows of each feature map of a model. Raises UserError, for ``where``, if it gives none."""
    known = getattr(network, "feature_info", None)
    if not hasattr(network, "forward_intermediates") or known is None:
        raise UserError(f"{where}: a {type(network).__name__} gives no feature maps; take another model")
    return list(known)
