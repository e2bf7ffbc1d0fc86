"""Noisy Student: Xie, Luong, Hovy and Le, "Self-training with Noisy Student improves ImageNet
classification", CVPR 2020, arXiv 1911.04252.

A batch holds B labeled images x and r·B pseudo-labeled ones x̃, all of them noised; the student f descends
the average cross-entropy over all (Section 3.1: "concatenated together to compute the average cross entropy"):

    1/((1 + r)·B) · ( Σ CE(y, f(x)) + Σ CE(ỹ, f(x̃)) )

ỹ is the teacher's opinion of the clean image: its distribution (soft, as in the paper) or its argmax (hard).
"""

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from selftrain.algorithms.algorithm import Algorithm, Batch
from selftrain.algorithms.losses import accuracy, one_hot, soft_cross_entropy, with_temperature
from selftrain.config import Section


class NoisyStudentConfig(Section):
    """``train.algorithm`` of a Noisy Student round."""

    labels: Literal["soft", "hard"] = "soft"
    temperature: float = Field(default=1.0, gt=0)
    """Of the soft pseudo-labels; the paper's is 1."""


def noisy_student_loss(student_logits: Tensor, labels: Tensor, pseudo_labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(average over all, mean over labeled, mean over pseudo-labeled) cross-entropy, three scalars.

    ``student_logits`` is (B + r·B, C), labeled images first; ``labels`` (B,) class indices;
    ``pseudo_labels`` (r·B, C) probabilities.
    """
    targets = torch.cat([one_hot(labels, student_logits.shape[1]), pseudo_labels])  # (B + r·B, C)
    losses = soft_cross_entropy(student_logits, targets)  # (B + r·B,)
    labeled, unlabeled = torch.split(losses, [len(labels), len(pseudo_labels)])
    return losses.mean(), labeled.mean(), unlabeled.mean()


class NoisyStudent(Algorithm):
    """One noised student on labeled and pseudo-labeled images. The teacher is read from its prediction table."""

    Config = NoisyStudentConfig
    views = {"labeled": ("image", "label"), "unlabeled": ("image", "log_probs")}

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """See ``noisy_student_loss``."""
        labeled, unlabeled = batch["labeled"], batch["unlabeled"]
        logits = self.student(torch.cat([labeled["image"], unlabeled["image"]]))  # (B + r·B, C)
        loss, labeled_loss, unlabeled_loss = noisy_student_loss(
            logits, labeled["label"], self._pseudo_labels(unlabeled["log_probs"])
        )
        return {
            "loss": loss,
            "labeled_loss": labeled_loss,
            "unlabeled_loss": unlabeled_loss,
            "labeled_accuracy": accuracy(logits[: len(labeled["label"])], labeled["label"]),
        }

    def _pseudo_labels(self, log_probs: Tensor) -> Tensor:
        """(r·B, C) teacher log-probabilities → (r·B, C) targets."""
        if self.config.labels == "hard":
            return one_hot(log_probs.argmax(dim=1), log_probs.shape[1])
        return with_temperature(log_probs, self.config.temperature)
