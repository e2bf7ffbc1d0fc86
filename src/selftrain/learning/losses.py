"""Loss primitives that algorithms share."""

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from selftrain.plumbing.sections import Section


class PseudoLabelConfig(Section):
    """How a teacher's prediction is taken, for algorithms that train on it."""

    labels: Literal["soft", "hard"] = "soft"
    """``soft``: its distribution; ``hard``: its likeliest class."""
    temperature: float = Field(default=1.0, gt=0)
    """Of soft pseudo-labels; Noisy Student's is 1."""


def full_precision(logits: Tensor) -> Tensor:
    """Half precision as float32, in which losses are taken; float32 and float64 as they are."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


def soft_cross_entropy(logits: Tensor, target_probs: Tensor) -> Tensor:
    """Cross-entropy of each image against a distribution, in nats: −Σ_c p_c log softmax(logits)_c.

    (B, C) logits and (B, C) probabilities → (B,). Its gradient is that of KL(target ‖ student): the two
    differ by the target's entropy, a constant.
    """
    return -(target_probs * full_precision(logits).log_softmax(dim=1)).sum(dim=1)


def one_hot(labels: Tensor, num_classes: int) -> Tensor:
    """(B,) class indices → (B, C) float32 distributions."""
    return functional.one_hot(labels.long(), num_classes).float()


def smoothed(target_probs: Tensor, label_smoothing: float) -> Tensor:
    """Distributions (B, C) with the share ``label_smoothing`` (0–1) of each spread over all classes."""
    return target_probs * (1 - label_smoothing) + label_smoothing / target_probs.shape[1]


def with_temperature(log_probs: Tensor, temperature: float) -> Tensor:
    """The distribution of log-probabilities (B, C) at another temperature, as probabilities (B, C)."""
    return torch.softmax(full_precision(log_probs) / temperature, dim=1)


def accuracy(logits: Tensor, labels: Tensor) -> Tensor:
    """Share of images whose largest logit is their label, 0–1; (B, C) and (B,) → scalar."""
    return (logits.argmax(dim=1) == labels).float().mean()


def pseudo_label_targets(log_probs: Tensor, labels: str, temperature: float) -> Tensor:
    """A teacher's log-probabilities (B, C) as the student's targets (B, C); ``labels`` is ``soft`` or ``hard``."""
    if labels == "hard":
        return one_hot(log_probs.argmax(dim=1), log_probs.shape[1])
    return with_temperature(log_probs, temperature)


def confident_labels(logits: Tensor, threshold: float, known: Tensor) -> tuple[Tensor, Tensor]:
    """A network's own labels of unlabeled images, and which of them count.

    ``logits`` (B, C); ``known`` (B,) holds the class of images that a person labeled and -1 elsewhere. Returns labels
    (B,) and a mask (B,), true where the likeliest class has a probability of at least ``threshold`` (0–1), or is known.
    """
    confidence, labels = full_precision(logits.detach()).softmax(dim=1).max(dim=1)
    is_known = known >= 0
    return torch.where(is_known, known, labels), (confidence >= threshold) | is_known


def masked_cross_entropy(logits: Tensor, labels: Tensor, mask: Tensor) -> Tensor:
    """Cross-entropy of the images that ``mask`` (B,) has, over the number of all; (B, C), (B,), (B,) → scalar."""
    return (functional.cross_entropy(full_precision(logits), labels, reduction="none") * mask).mean()


def consistency_loss(
    weak_logits: Tensor, strong_logits: Tensor, known: Tensor, temperature: float, threshold: float
) -> tuple[Tensor, Tensor]:
    """UDA's loss (Xie et al. 2020, arXiv 1904.12848, Section 2.2 and 3): the strongly noised view has to be seen as the
    weakly noised one is, which gets no gradient.

    Both logits (B, C). The target is the weak view's distribution at ``temperature``; it counts where its likeliest
    class has a probability of at least ``threshold`` (0–1) before sharpening. ``known`` as in ``confident_labels``:
    such images have their class as target. Returns the mean over all images, and the share that counted.
    """
    labels, mask = confident_labels(weak_logits, threshold, known)
    sharpened = with_temperature(weak_logits.detach(), temperature)
    targets = torch.where((known >= 0)[:, None], one_hot(labels, weak_logits.shape[1]), sharpened)
    return (soft_cross_entropy(strong_logits, targets) * mask).mean(), mask.float().mean()


def ramp(step: int, start: int, end: int) -> float:
    """0 before ``start``, 1 from ``end`` on, and linear between; ``end`` is not before ``start``."""
    if step < start:
        return 0.0
    return 1.0 if step >= end else (step - start) / (end - start)


def divergence(log_probs: Tensor, target_log_probs: Tensor) -> Tensor:
    """KL(target ‖ other) of each image in nats: Σ_c p_c (log p_c − log q_c), both (B, C) normalised → (B,)."""
    return (target_log_probs.exp() * (target_log_probs - log_probs)).sum(dim=1)


def distillation_loss(student_logits: Tensor, teacher_log_probs: Tensor, temperature: float) -> Tensor:
    """T² · KL(teacher at T ‖ student at T), the mean over images; (B, C) twice → scalar; the teacher gets no gradient.

    Hinton et al. 2015, arXiv 1503.02531, Section 2: the gradient of the softened divergence falls with 1/T², so that
    T² keeps its share of the loss when T is changed.
    """
    student = (full_precision(student_logits) / temperature).log_softmax(dim=1)
    teacher = (full_precision(teacher_log_probs.detach()) / temperature).log_softmax(dim=1)
    return temperature**2 * divergence(student, teacher).mean()


def certain(labels: Tensor, num_classes: int) -> Tensor:
    """(B,) class indices → (B, C) log-probabilities of somebody who is sure, at any temperature in use."""
    return (one_hot(labels, num_classes) - 1) * 30000
