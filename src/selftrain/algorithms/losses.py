"""Loss primitives that algorithms share."""

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from selftrain.config import Section


class PseudoLabelConfig(Section):
    """How a teacher's opinion is taken, for algorithms that train on it."""

    labels: Literal["soft", "hard"] = "soft"
    """``soft``: its distribution; ``hard``: its likeliest class."""
    temperature: float = Field(default=1.0, gt=0)
    """Of soft pseudo-labels; Noisy Student's is 1."""


def soft_cross_entropy(logits: Tensor, target_probs: Tensor) -> Tensor:
    """Cross-entropy of each image against a distribution, in nats: −Σ_c p_c log softmax(logits)_c.

    (B, C) logits and (B, C) probabilities → (B,). Its gradient is that of KL(target ‖ student): the two
    differ by the target's entropy, a constant.
    """
    return -(target_probs * logits.float().log_softmax(dim=1)).sum(dim=1)


def one_hot(labels: Tensor, num_classes: int) -> Tensor:
    """(B,) class indices → (B, C) float32 distributions."""
    return functional.one_hot(labels.long(), num_classes).float()


def with_temperature(log_probs: Tensor, temperature: float) -> Tensor:
    """The distribution of log-probabilities (B, C) at another temperature, as probabilities (B, C)."""
    return torch.softmax(log_probs.float() / temperature, dim=1)


def accuracy(logits: Tensor, labels: Tensor) -> Tensor:
    """Share of images whose largest logit is their label, 0–1; (B, C) and (B,) → scalar."""
    return (logits.argmax(dim=1) == labels).float().mean()


def pseudo_label_targets(log_probs: Tensor, labels: str, temperature: float) -> Tensor:
    """A teacher's log-probabilities (B, C) as the student's targets (B, C); ``labels`` is ``soft`` or ``hard``."""
    if labels == "hard":
        return one_hot(log_probs.argmax(dim=1), log_probs.shape[1])
    return with_temperature(log_probs, temperature)
