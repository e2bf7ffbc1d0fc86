"""Meta Pseudo Labels: Pham, Dai, Xie and Le, CVPR 2021, arXiv 2003.10580, Algorithm 1.

Teacher T and student S are trained in parallel. Each step T labels unlabeled images, S learns from these labels, and T
descends

    h · CE(ŷ, T(u)) + CE(y, T(x)) + λ · UDA(T; u)

where h says what the labels did to S on labeled images: see ``feedback.py``. S sees no labeled image; fine-tuning it
on them is a later phase of the run (``train.then``, with the algorithm ``supervised``). T's own optimizer, schedule
and dropout are ``train.networks.teacher``.

Where the paper and its authors' code (google-research/meta_pseudo_labels) differ, and which switch runs which, is in
``pipelines/meta_pseudo_labels/README.md``.
"""

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from selftrain.algorithms.uda import annealed_cross_entropy
from selftrain.learning.algorithm import Batch, Networks
from selftrain.learning.feedback import FeedbackConfig, TeachingAlgorithm
from selftrain.learning.losses import (
    accuracy,
    confident_labels,
    consistency_loss,
    full_precision,
    masked_cross_entropy,
    ramp,
)
from selftrain.learning.runtime import Runtime


class MetaPseudoLabelsConfig(FeedbackConfig):
    """``train.algorithm`` of Meta Pseudo Labels."""

    labels_from: Literal["image", "image_weak"] = "image"
    """The view of an unlabeled image that the teacher labels: the one that the student sees (the authors' code), or the
    one with crop and flip alone."""
    teacher_loss: Literal["uda", "pseudo_label", "supervised"] = "uda"
    """What the teacher learns beside the feedback: on labeled images always; ``uda`` and ``pseudo_label`` (as in
    ``pseudo_label.py``) on unlabeled ones too."""
    teacher_mixup: bool = False
    """Mix each labeled image of the teacher with another (mixup, arXiv 1710.09412, α = 1)."""
    unlabeled_factor: float = Field(default=1.0, ge=0)
    """λ of the teacher's loss on unlabeled images; ``UDA factor`` in Table 8."""
    labeled_confidence: float = Field(default=1.0, gt=0, le=1)
    """Labeled images that the teacher is surer of than this are left out of its step (Appendix C.4); not of mixed ones.
    """
    unlabeled_ramp_steps: int = Field(default=0, ge=0)
    """Steps in which λ rises from 0."""
    temperature: float = Field(default=0.8, gt=0)
    """UDA's."""
    threshold: float = Field(default=0.0, ge=0, le=1)
    """Confidence from which an unlabeled image counts in the teacher's loss."""


def mixup(images: Tensor, uniforms: Tensor) -> Tensor:
    """λ·x + (1 − λ)·x', x' the next image of the batch; (B, 3, H, W) and λ (B,), from 0 to 1 → (B, 3, H, W)."""
    return torch.lerp(images.roll(1, dims=0), images, uniforms.view(-1, 1, 1, 1))


def mixup_loss(logits: Tensor, labels: Tensor, uniforms: Tensor, label_smoothing: float) -> Tensor:
    """λ·CE(y) + (1 − λ)·CE(y') of mixed images, the mean; (B, C), (B,), (B,) → scalar."""
    first, second = (
        functional.cross_entropy(full_precision(logits), target, reduction="none", label_smoothing=label_smoothing)
        for target in (labels, labels.roll(1))
    )
    return (uniforms * first + (1 - uniforms) * second).mean()


class MetaPseudoLabels(TeachingAlgorithm):
    """Two networks of any architecture, trained together; the student is the result."""

    Config = MetaPseudoLabelsConfig
    views = {"labeled": ("image", "label", "uniform"), "unlabeled": ("image_weak", "image", "label", "uniform")}

    def __init__(self, student: nn.Module, config: MetaPseudoLabelsConfig, networks: Networks) -> None:
        super().__init__(student, config, networks)
        self.teacher = networks.new("teacher")

    def validated_networks(self) -> dict[str, nn.Module]:
        """The teacher."""
        return {"teacher": self.teacher}

    def teacher_step(self, batch: Batch, step: int, runtime: Runtime) -> tuple[Tensor, dict[str, Tensor]]:
        """All views that are needed, in one pass."""
        config, labeled, unlabeled = self.config, batch["labeled"], batch["unlabeled"]
        images = mixup(labeled["image"], labeled["uniform"]) if config.teacher_mixup else labeled["image"]
        seen = {"labeled": images}
        if config.teacher_loss == "uda" or config.labels_from == "image_weak":
            seen["unlabeled_weak"] = unlabeled["image_weak"]
        if config.teacher_loss != "supervised" or config.labels_from == "image":
            seen["unlabeled"] = unlabeled["image"]
        logits = runtime.logits(self.teacher, **seen)
        uniforms = labeled["uniform"]
        losses = {
            "teacher_labeled_loss": mixup_loss(logits["labeled"], labeled["label"], uniforms, config.label_smoothing)
            if config.teacher_mixup
            else annealed_cross_entropy(
                logits["labeled"], labeled["label"], config.labeled_confidence, config.label_smoothing, runtime
            ),
            "teacher_labeled_accuracy": accuracy(logits["labeled"], labeled["label"]),
        }
        losses["teacher_loss"] = losses["teacher_labeled_loss"]
        if config.teacher_loss != "supervised":
            unlabeled_loss, share = self._unlabeled_loss(logits, unlabeled["label"])
            losses |= {"teacher_unlabeled_loss": unlabeled_loss, "confident_share": share}
            factor = config.unlabeled_factor * ramp(step, 0, config.unlabeled_ramp_steps)
            losses["teacher_loss"] = losses["teacher_loss"] + factor * unlabeled_loss
        return logits["unlabeled" if config.labels_from == "image" else "unlabeled_weak"], losses

    def _unlabeled_loss(self, logits: dict[str, Tensor], known: Tensor) -> tuple[Tensor, Tensor]:
        """The teacher's loss on unlabeled images, and the share of them that counted."""
        strong, config = logits["unlabeled"], self.config
        if config.teacher_loss == "uda":
            return consistency_loss(logits["unlabeled_weak"], strong, known, config.temperature, config.threshold)
        labels, mask = confident_labels(strong, config.threshold, known)
        return masked_cross_entropy(strong, labels, mask), mask.float().mean()
