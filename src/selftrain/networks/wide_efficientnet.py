"""EfficientNet-B6-Wide (Meta Pseudo Labels, arXiv 2003.10580, Section 4), registered with timm, which has none.

B6's depth and five times EfficientNet-B0's width. The paper counts 390 million parameters; by the rules with which timm
and EfficientNet's authors round channels and repeats these are 317 million.
"""

from typing import Any

from timm.models import generate_default_cfgs, register_model
from timm.models.efficientnet import EfficientNet, _gen_efficientnet

WIDTH, DEPTH = 5.0, 2.6

# The name is timm's convention: `register_model` looks it up in the module of the function that it registers.
default_cfgs = generate_default_cfgs(
    {
        "efficientnet_b6_wide": {
            "input_size": (3, 512, 512),
            "num_classes": 1000,
            "interpolation": "bicubic",
            "crop_pct": 0.936,
            "mean": (0.485, 0.456, 0.406),
            "std": (0.229, 0.224, 0.225),
            "first_conv": "conv_stem",
            "classifier": "classifier",
        }
    }
)


@register_model
def efficientnet_b6_wide(pretrained: bool = False, **options: Any) -> EfficientNet:
    """EfficientNet-B6 with a width of 5.0 in place of 1.8."""
    # As timm's `tf_efficientnet_*`.
    options = {"bn_eps": 1e-3, "pad_type": "same"} | options
    network: EfficientNet = _gen_efficientnet(  # type: ignore[no-untyped-call]
        "efficientnet_b6_wide", WIDTH, DEPTH, pretrained=pretrained, **options
    )
    return network
