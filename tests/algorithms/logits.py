"""Losses by hand: a network whose logits are its images, and a softmax of plain numbers."""

import math

import torch
from torch import Tensor, nn


def softmax(row: Tensor, temperature: float = 1.0) -> list[float]:
    weights = [math.exp(value / temperature) for value in row.tolist()]
    return [weight / sum(weights) for weight in weights]


class Given(nn.Module):
    """A network whose logits are its inputs, (B, C) or (B, C, 1, 1)."""

    num_classes = 3

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, images: Tensor) -> Tensor:
        return self.scale * images.flatten(1)
