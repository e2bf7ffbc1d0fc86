"""Noisy Student: Xie, Luong, Hovy and Le, "Self-training with Noisy Student improves ImageNet
classification", CVPR 2020, arXiv 1911.04252.

A batch holds B labeled images x and r·B pseudo-labeled ones x̃, all of them noised; the student f descends
one of two averages. The paper's text and Algorithm 1 differ in them:

    Section 3.1   1/((1 + r)·B) · ( Σ CE(y, f(x)) + Σ CE(ỹ, f(x̃)) )     "concatenated together to compute the average"
    Algorithm 1   1/B · Σ CE(y, f(x)) + 1/(r·B) · Σ CE(ỹ, f(x̃))

With the first, pseudo-labeled images weigh r times as much as labeled ones; with the second, as much.
ỹ is the teacher's prediction of the clean image: its distribution (soft, as in the paper) or its argmax (hard).
"""

from typing import Literal

from torch import Tensor

from selftrain.algorithms.algorithm import Algorithm, Batch
from selftrain.algorithms.losses import PseudoLabelConfig, accuracy, one_hot, pseudo_label_targets, soft_cross_entropy
from selftrain.algorithms.runtime import Runtime


class NoisyStudentConfig(PseudoLabelConfig):
    """``train.algorithm`` of a Noisy Student round."""

    average: Literal["all_images", "each_source"] = "all_images"
    """``all_images``: Section 3.1's average; ``each_source``: Algorithm 1's sum of two means."""


def noisy_student_loss(
    labeled_logits: Tensor,
    labels: Tensor,
    unlabeled_logits: Tensor,
    pseudo_labels: Tensor,
    weights: Tensor,
    average: str,
) -> tuple[Tensor, Tensor, Tensor]:
    """(the loss, mean over labeled, mean over pseudo-labeled) cross-entropy in nats, three scalars.

    ``labeled_logits`` (B, C) and ``labels`` (B,) class indices; ``unlabeled_logits`` (r·B, C) and ``pseudo_labels``
    (r·B, C) probabilities; ``weights`` (r·B,) multiply the cross-entropy of each; ``average`` as in
    ``NoisyStudentConfig``.
    """
    labeled = soft_cross_entropy(labeled_logits, one_hot(labels, labeled_logits.shape[1])).mean()
    unlabeled = (weights * soft_cross_entropy(unlabeled_logits, pseudo_labels)).mean()
    if average == "each_source":
        return labeled + unlabeled, labeled, unlabeled
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
        loss, labeled_loss, unlabeled_loss = noisy_student_loss(
            logits["labeled"],
            labeled["label"],
            logits["unlabeled"],
            targets,
            unlabeled["weight"],
            self.config.average,
        )
        return {
            "loss": loss,
            "labeled_loss": labeled_loss,
            "unlabeled_loss": unlabeled_loss,
            "labeled_accuracy": accuracy(logits["labeled"], labeled["label"]),
        }
