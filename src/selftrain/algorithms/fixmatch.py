"""FixMatch: Sohn et al., "FixMatch: Simplifying semi-supervised learning with consistency and confidence", NeurIPS
2020, arXiv 2001.07685.

The network's label of a weakly noised image (crop and flip), if it is confident, is the label of the strongly noised
one:

    L = CE(y, f(x)) + λ · 1/(μB) · Σ 1[max q ≥ τ] · CE(argmax q, f(strong(u))),    q = softmax f(weak(u))

The paper: τ = 0.95, λ = 1, μ = 7 (``unlabeled_ratio``), weak noise on labeled images (``noise.on_labeled:
[weak_augmentation]``), SGD with Nesterov momentum at 0.03, a cosine over 7/16 of a period (here half of one), and the
moving average of the weights as the result. All views go through the network in one pass.
"""

from pydantic import Field
from torch import Tensor
from torch.nn import functional

from selftrain.learning.algorithm import Algorithm, Batch
from selftrain.learning.losses import accuracy, confident_labels, full_precision, masked_cross_entropy
from selftrain.learning.runtime import Runtime
from selftrain.plumbing.sections import Section


class FixMatchConfig(Section):
    """``train.algorithm`` of FixMatch."""

    threshold: float = Field(default=0.95, ge=0, le=1)
    """τ: confidence from which a label counts."""
    factor: float = Field(default=1.0, ge=0)
    """λ."""


class FixMatch(Algorithm):
    """One network that labels weakly noised images for their strongly noised versions."""

    Config = FixMatchConfig
    views = {"labeled": ("image", "label"), "unlabeled": ("image_weak", "image", "label")}

    def loss(self, batch: Batch, step: int, runtime: Runtime) -> dict[str, Tensor]:
        """See the module's docstring."""
        labeled, unlabeled = batch["labeled"], batch["unlabeled"]
        logits = runtime.logits(
            self.student, labeled=labeled["image"], unlabeled_weak=unlabeled["image_weak"], unlabeled=unlabeled["image"]
        )
        labels, mask = confident_labels(logits["unlabeled_weak"], self.config.threshold, unlabeled["label"])
        labeled_loss = functional.cross_entropy(full_precision(logits["labeled"]), labeled["label"])
        unlabeled_loss = masked_cross_entropy(logits["unlabeled"], labels, mask)
        return {
            "loss": labeled_loss + self.config.factor * unlabeled_loss,
            "labeled_loss": labeled_loss,
            "unlabeled_loss": unlabeled_loss,
            "confident_share": mask.float().mean(),
            "labeled_accuracy": accuracy(logits["labeled"], labeled["label"]),
        }
