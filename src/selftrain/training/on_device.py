"""A batch as the loader makes it → as the networks take it."""

import torch
from torch import nn

from selftrain.images.device_noise import noised
from selftrain.learning.algorithm import Batch
from selftrain.networks.models import normalization, to_input
from selftrain.training.batches import PLAN


def on_device(batch: Batch, student: nn.Module, device: torch.device) -> Batch:
    """Images (B, H, W, 3) uint8 become inputs (B, 3, H, W), noised on the device where plans for that lie beside them;
    all else is moved.
    """
    mean, std = normalization(student)
    moved: Batch = {}
    for source, views in batch.items():
        moved[source] = {}
        for name, value in views.items():
            if name.endswith(PLAN):
                continue
            value = value.to(device, non_blocking=value.dtype == torch.uint8)
            if value.dtype == torch.uint8:
                plans = views.get(f"{name}{PLAN}")
                value = to_input(value if plans is None else noised(value, plans), mean, std, device)
            moved[source][name] = value
    return moved
