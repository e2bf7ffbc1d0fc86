"""Noisy Student: Xie, Luong, Hovy and Le, "Self-training with Noisy Student improves ImageNet
classification", CVPR 2020, arXiv 1911.04252.

A batch holds B labeled images x and r·B pseudo-labeled ones x̃, all of them noised; the student f descends
one of three averages. The paper's text, its Algorithm 1 and its code differ in them:

    Section 3.1   1/((1 + r)·B) · ( Σ CE(y, f(x)) + Σ CE(ỹ, f(x̃)) )     "concatenated together to compute the average"
    Algorithm 1   1/B · Σ CE(y, f(x)) + 1/(r·B) · Σ CE(ỹ, f(x̃))
    the code      1/B · Σ CE(y, f(x)) + r · 1/(r·B) · Σ CE(ỹ, f(x̃))

With the first and the third, pseudo-labeled images weigh r times as much as labeled ones; with the second, as much.
The third is 1 + r times the first, and its gradient with it: it is another learning rate and another weight decay.
ỹ is the teacher's prediction of the clean image: its distribution (soft, as in the paper) or its argmax (hard).
"""

from typing import Literal

from pydantic import Field
from torch import Tensor

from selftrain.learning.algorithm import Algorithm, Batch
from selftrain.learning.losses import (
    PseudoLabelConfig,
    accuracy,
    one_hot,
    pseudo_label_targets,
    smoothed,
    soft_cross_entropy,
)
from selftrain.learning.runtime import Runtime


class NoisyStudentConfig(PseudoLabelConfig):
    """``train.algorithm`` of a Noisy Student round."""

    average: Literal["all_images", "each_source", "labeled_size"] = "all_images"
    """``all_images``: Section 3.1's average; ``each_source``: Algorithm 1's sum of two means; ``labeled_size``: the
    code's, where both sums are divided by the number of labeled images."""
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    """Of labels, and of hard pseudo-labels; 0.1 in the authors' code. Soft ones stay as the teacher gave them."""


def noisy_student_loss(
    labeled_logits: Tensor,
    labels: Tensor,
    unlabeled_logits: Tensor,
    pseudo_labels: Tensor,
    weights: Tensor,
    average: str,
    label_smoothing: float = 0.0,
) -> tuple[Tensor, Tensor, Tensor]:
    """(the loss, mean over labeled, mean over pseudo-labeled) cross-entropy in nats, three scalars.

    ``labeled_logits`` (B, C) and ``labels`` (B,) class indices; ``unlabeled_logits`` (r·B, C) and ``pseudo_labels``
    (r·B, C) probabilities; ``weights`` (r·B,) multiply the cross-entropy of each; ``average`` as in
    ``NoisyStudentConfig``; ``label_smoothing`` is of ``labels``.
    """
    targets = smoothed(one_hot(labels, labeled_logits.shape[1]), label_smoothing)
    labeled = soft_cross_entropy(labeled_logits, targets).mean()
    unlabeled = (weights * soft_cross_entropy(unlabeled_logits, pseudo_labels)).mean()
    if average == "each_source":
        return labeled + unlabeled, labeled, unlabeled
    if average == "labeled_size":
        return labeled + len(unlabeled_logits) / len(labeled_logits) * unlabeled, labeled, unlabeled
    share = len(labeled_logits) / (len(labeled_logits) + len(unlabeled_logits))
    return share * labeled + (1 - share) * unlabeled, labeled, unlabeled


class NoisyStudent(Algorithm):
    """One noised student on labeled and pseudo-labeled images. The teacher is read from its prediction table."""

    Config = NoisyStudentConfig
    views = {"labeled": ("image", "label"), "unlabeled": ("image", "log_probs", "weight")}

    def loss(self, batch: Batch, step: int, runtime: Runtime) -> dict[str, Tensor]:
        """See ``noisy_student_loss``."""
        labeled, unlabeled = batch["labeled"], batch["unlabeled"]
        logits = runtime.logits(self.student, labeled=labeled["image"], unlabeled=unlabeled["image"])
        targets = pseudo_label_targets(unlabeled["log_probs"], self.config.labels, self.config.temperature)
        if self.config.labels == "hard":
            targets = smoothed(targets, self.config.label_smoothing)
        loss, labeled_loss, unlabeled_loss = noisy_student_loss(
            logits["labeled"],
            labeled["label"],
            logits["unlabeled"],
            targets,
            unlabeled["weight"],
            self.config.average,
            self.config.label_smoothing,
        )
        return {
            "loss": loss,
            "labeled_loss": labeled_loss,
            "unlabeled_loss": unlabeled_loss,
            "labeled_accuracy": accuracy(logits["labeled"], labeled["label"]),
        }
