"""WideResNet (Zagoruyko and Komodakis 2016, arXiv 1605.07146) for 32×32 images, registered with timm, which has none.

``wide_resnet28_2``, 1.5 million parameters, is what papers on semi-supervised learning compare on. Pre-activation
blocks; leaky ReLU of slope 0.1, as those papers have it since Oliver et al. 2018 (arXiv 1804.09170).
"""

from typing import Any

import torch
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from torch import Tensor, nn
from torch.nn import functional

SLOPE = 0.1

# The name is timm's convention: `register_model` looks it up in the module of the function that it registers.
default_cfgs = generate_default_cfgs(
    {
        "wide_resnet28_2": {
            "input_size": (3, 32, 32),
            "num_classes": 10,
            # CIFAR-10's own channel statistics, which papers normalise with.
            "mean": (0.4914, 0.4822, 0.4465),
            "std": (0.2470, 0.2435, 0.2616),
            "interpolation": "bilinear",
            "crop_pct": 1.0,
            "first_conv": "stem",
            "classifier": "classifier",
        }
    }
)


def _norm(channels: int) -> nn.BatchNorm2d:
    # The statistics' decay is 0.99 in Meta Pseudo Labels' tables.
    return nn.BatchNorm2d(channels, momentum=0.01)


class Block(nn.Module):
    """Two 3×3 convolutions, each after norm and activation, beside a shortcut."""

    def __init__(self, inputs: int, outputs: int, stride: int, activate_shortcut: bool) -> None:
        super().__init__()
        self.norm1 = _norm(inputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.norm2 = _norm(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.shortcut = nn.Conv2d(inputs, outputs, 1, stride, bias=False) if inputs != outputs else nn.Identity()
        self.activate_shortcut = activate_shortcut

    def forward(self, features: Tensor) -> Tensor:
        """(B, inputs, H, W) → (B, outputs, H / stride, W / stride)."""
        activated = functional.leaky_relu(self.norm1(features), SLOPE)
        branch = self.conv2(functional.leaky_relu(self.norm2(self.conv1(activated)), SLOPE))
        return torch.add(branch, self.shortcut(activated if self.activate_shortcut else features))


class WideResNet(nn.Module):
    """Three groups of blocks at 32, 16 and 8 pixels, pooled, and a linear classifier."""

    def __init__(
        self, depth: int = 28, width: int = 2, num_classes: int = 10, in_chans: int = 3, **options: Any
    ) -> None:
        super().__init__()
        if options.pop("drop_path_rate", 0.0):
            raise TypeError("drop_path_rate")
        assert (depth - 4) % 6 == 0
        widths = [16, 16 * width, 32 * width, 64 * width]
        self.num_classes, self.num_features = num_classes, widths[3]
        self.stem = nn.Conv2d(in_chans, widths[0], 3, padding=1, bias=False)
        self.groups = nn.ModuleList()
        for place in range(3):
            blocks = [Block(widths[place], widths[place + 1], 1 if place == 0 else 2, activate_shortcut=place == 0)]
            blocks += [Block(widths[place + 1], widths[place + 1], 1, False) for _ in range((depth - 4) // 6 - 1)]
            self.groups.append(nn.Sequential(*blocks))
        self.norm = _norm(widths[3])
        self.classifier = nn.Linear(widths[3], num_classes) if num_classes else nn.Identity()
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, a=SLOPE, mode="fan_out", nonlinearity="leaky_relu")
            elif isinstance(module, nn.Linear):
                nn.init.xavier_normal_(module.weight)
                nn.init.zeros_(module.bias)

    def get_classifier(self) -> nn.Module:
        """The last layer."""
        return self.classifier

    def reset_classifier(self, num_classes: int) -> None:
        """Another last layer, for other classes."""
        self.num_classes = num_classes
        self.classifier = nn.Linear(self.num_features, num_classes) if num_classes else nn.Identity()

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Timm's pattern of layers from the input on."""
        blocks = r"^groups\.(\d+)" if coarse else [(r"^groups\.(\d+)\.(\d+)", None), (r"^norm", (99999,))]
        return {"stem": r"^stem", "blocks": blocks}

    def forward_features(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) → (B, 64 · width, H / 4, W / 4)."""
        features = self.stem(images)
        for group in self.groups:
            features = group(features)
        return functional.leaky_relu(self.norm(features), SLOPE)

    def forward_head(self, features: Tensor, pre_logits: bool = False) -> Tensor:
        """Features → logits (B, C), or with ``pre_logits`` the pooled features (B, 64 · width)."""
        pooled = features.mean(dim=(2, 3))
        return pooled if pre_logits else self.classifier(pooled)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) → logits (B, C)."""
        return self.forward_head(self.forward_features(images))


@register_model
def wide_resnet28_2(pretrained: bool = False, **options: Any) -> WideResNet:
    """28 layers, twice the width."""
    return build_model_with_cfg(WideResNet, "wide_resnet28_2", pretrained, **options)
