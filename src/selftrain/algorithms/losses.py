"""Loss primitives that algorithms share."""

import torch
from torch import Tensor
from torch.nn import functional


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
