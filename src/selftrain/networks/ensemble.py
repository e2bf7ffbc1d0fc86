"""Several networks as one: the weighted mean of their distributions.

Registered with timm, so that an ensemble is a model folder like any other: it is predicted with, evaluated and taken as
a teacher by whatever takes a model. ``import selftrain.networks.models`` registers it.
"""

from typing import Any

import timm
import torch
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from torch import Tensor, nn
from torch.nn import functional

default_cfgs = generate_default_cfgs(
    {"ensemble": {"input_size": (3, 224, 224), "mean": (0.5,) * 3, "std": (0.5,) * 3, "classifier": ""}}
)


class Ensemble(nn.Module):
    """log Σ_k w_k softmax(f_k(x)); members may differ in architecture, normalisation and image size."""

    log_weights: Tensor

    def __init__(
        self, members: list[dict[str, Any]], weights: list[float], num_classes: int = 1000, **options: Any
    ) -> None:
        """``members``: each one's ``architecture`` in timm, its ``options``, ``mean``, ``std``, ``size`` of images, and
        ``crop``, the share of the ensemble's square that it sees, where that is less than 1.

        ``weights`` are positive; they need not add up to 1.
        """
        super().__init__()
        assert len(members) == len(weights) and min(weights) > 0
        self.num_classes = num_classes
        self.members = nn.ModuleList(
            timm.create_model(member["architecture"], **member["options"] | {"num_classes": num_classes})
            for member in members
        )
        self.num_features = sum(member.num_features for member in self.each)
        self.sizes = [int(member["size"]) for member in members]
        self.crops = [float(member.get("crop", 1)) for member in members]
        shares = torch.tensor(weights, dtype=torch.float32)
        # Saved with the weights, so that another share is another model by their hash.
        self.register_buffer("log_weights", (shares / shares.sum()).log())
        for place, member in enumerate(members):
            for name in ("mean", "std"):
                values = torch.tensor(member[name], dtype=torch.float32).view(-1, 1, 1)
                self.register_buffer(f"{name}{place}", values, persistent=False)

    @property
    def each(self) -> list[Any]:
        """The members, timm's models."""
        return list(self.members)

    def get_classifier(self) -> tuple[nn.Module, ...]:
        """Every member's last layer."""
        return tuple(member.get_classifier() for member in self.each)

    def reset_classifier(self, num_classes: int) -> None:
        """Other last layers, for other classes."""
        self.num_classes = num_classes
        for member in self.each:
            member.reset_classifier(num_classes)

    def forward_features(self, images: Tensor) -> list[Tensor]:
        """(B, 3, H, W), normalised with mean and deviation 0.5 → each member's features."""
        found = []
        for place, (member, size, crop) in enumerate(zip(self.each, self.sizes, self.crops, strict=True)):
            side = round(crop * images.shape[-1])
            start = (images.shape[-1] - side) // 2
            resized = images[..., start : start + side, start : start + side]
            if side != size:
                resized = functional.interpolate(resized, size=(size, size), mode="bilinear", antialias=True)
            mean, std = getattr(self, f"mean{place}"), getattr(self, f"std{place}")
            found.append(member.forward_features((resized * 0.5 + 0.5 - mean) / std))
        return found

    def forward_head(self, features: list[Tensor], pre_logits: bool = False) -> Tensor:
        """Features → log-probabilities (B, C), or with ``pre_logits`` the members' pooled features side by side."""
        heads = [
            member.forward_head(member_features, pre_logits=pre_logits)
            for member, member_features in zip(self.each, features, strict=True)
        ]
        if pre_logits:
            return torch.cat(heads, dim=1)
        each = torch.stack([logits.float().log_softmax(dim=1) for logits in heads])  # (K, B, C)
        return torch.logsumexp(each + self.log_weights[:, None, None], dim=0)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) → log-probabilities (B, C)."""
        return self.forward_head(self.forward_features(images))


@register_model
def ensemble(pretrained: bool = False, **options: Any) -> Ensemble:
    """Several networks as one; ``members`` and ``weights`` say which."""
    return build_model_with_cfg(Ensemble, "ensemble", pretrained, **options)
