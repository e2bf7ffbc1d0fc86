"""Pseudo-Label: Lee, "Pseudo-Label: the simple and efficient semi-supervised learning method for deep neural networks",
ICML 2013 workshop.

The network labels each batch of unlabeled images itself, while it learns:

    L = CE(y, f(x)) + α(t) · 1/B_u · Σ 1[max softmax f(u) ≥ τ] · CE(argmax f(u), f(u))

α(t) is zero at first and rises linearly to ``factor`` (Equation 16; the paper's 3 from step T1 to T2). The threshold τ
is not Lee's, who takes every label (0): Meta Pseudo Labels has it in its Table 6, 0.95 for CIFAR-10.
Labels and loss come from the same pass over the same noised image, as in the paper's dropout networks.
"""

from pydantic import Field, model_validator
from torch import Tensor
from torch.nn import functional

from selftrain.learning.algorithm import Algorithm, Batch
from selftrain.learning.losses import accuracy, confident_labels, full_precision, masked_cross_entropy, ramp
from selftrain.learning.runtime import Runtime
from selftrain.plumbing.sections import Section


class PseudoLabelMethodConfig(Section):
    """``train.algorithm`` of Pseudo-Label."""

    threshold: float = Field(default=0.95, ge=0, le=1)
    """Confidence from which the network's own label counts."""
    factor: float = Field(default=1.0, ge=0)
    """α after the ramp."""
    ramp_start: int = Field(default=0, ge=0)
    """Step up to which α is 0."""
    ramp_end: int = Field(default=0, ge=0)
    """Step from which α is ``factor``."""
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)

    @model_validator(mode="after")
    def _ramp_in_order(self) -> "PseudoLabelMethodConfig":
        if self.ramp_end < self.ramp_start:
            raise ValueError("`ramp_end` comes before `ramp_start`")
        return self


class PseudoLabel(Algorithm):
    """One network on labeled images and on its own labels of unlabeled ones."""

    Config = PseudoLabelMethodConfig
    views = {"labeled": ("image", "label"), "unlabeled": ("image", "label")}

    def loss(self, batch: Batch, step: int, runtime: Runtime) -> dict[str, Tensor]:
        """See the module's docstring."""
        labeled, unlabeled, config = batch["labeled"], batch["unlabeled"], self.config
        logits = runtime.logits(self.student, labeled=labeled["image"], unlabeled=unlabeled["image"])
        labels, mask = confident_labels(logits["unlabeled"], config.threshold, unlabeled["label"])
        labeled_loss = functional.cross_entropy(
            full_precision(logits["labeled"]), labeled["label"], label_smoothing=config.label_smoothing
        )
        unlabeled_loss = masked_cross_entropy(logits["unlabeled"], labels, mask)
        return {
            "loss": labeled_loss + config.factor * ramp(step, config.ramp_start, config.ramp_end) * unlabeled_loss,
            "labeled_loss": labeled_loss,
            "unlabeled_loss": unlabeled_loss,
            "confident_share": mask.float().mean(),
            "labeled_accuracy": accuracy(logits["labeled"], labeled["label"]),
        }
