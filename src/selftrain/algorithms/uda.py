"""UDA: Xie, Dai, Hovy, Luong and Le, "Unsupervised data augmentation for consistency training", NeurIPS 2020,
arXiv 1904.12848.

A strongly noised image (RandAugment) has to be seen as its weakly noised version (crop and flip) is:

    L = CE(y, f(x)) + λ · 1/B_u · Σ 1[max p ≥ β] · CE(sharpen(p, T), f(strong(u))),    p = softmax f(weak(u))

p gets no gradient. The paper: β = 0.8, T = 0.4 for CIFAR-10 and SVHN; Meta Pseudo Labels' baseline, its Table 7: T =
0.7, λ = 2.5, as many unlabeled as labeled images a step, 1 M steps. Both leave labeled images out that the network is
sure of already: UDA's bound rises during training ("training signal annealing"); Meta Pseudo Labels' Appendix C.4 does
not say how sure, and ``labeled_confidence`` is a fixed bound. Cross-entropy and the paper's KL differ by the target's
entropy, which has no gradient here.
"""

import math
from typing import Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor
from torch.nn import functional

from selftrain.learning.algorithm import Algorithm, Batch, Needs
from selftrain.learning.losses import accuracy, consistency_loss, full_precision, ramp
from selftrain.learning.runtime import Runtime
from selftrain.plumbing.sections import Section


class UDAConfig(Section):
    """``train.algorithm`` of UDA."""

    factor: float = Field(default=1.0, ge=0)
    """λ."""
    temperature: float = Field(default=0.4, gt=0)
    """Of the weak view's distribution; below 1 it sharpens."""
    threshold: float = Field(default=0.8, ge=0, le=1)
    """β: confidence from which an unlabeled image counts."""
    ramp_steps: int = Field(default=0, ge=0)
    """Steps in which λ rises from 0 to ``factor``."""
    labeled_confidence: float = Field(default=1.0, gt=0, le=1)
    """Labeled images whose own class is likelier than this are left out of the step."""
    annealing: Literal["none", "linear", "log", "exp"] = "none"
    """How the bound rises over ``annealing_steps`` from 1 / C to 1; it is then the lower one of both. ``exp`` lets
    labels in late, for few of them; ``log`` early."""
    annealing_steps: int = Field(default=0, ge=0)
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)

    @model_validator(mode="after")
    def _annealed_over_steps(self) -> "UDAConfig":
        if (self.annealing == "none") != (self.annealing_steps == 0):
            raise ValueError("`annealing` and `annealing_steps` belong together")
        return self


def annealed_bound(step: int, steps: int, num_classes: int, schedule: str) -> float:
    """The confidence from which a labeled image is left out in a step: α (1 − 1/C) + 1/C.

    With t = step / steps, α is t (``linear``), 1 − exp(−5 t) (``log``) or exp(5 (t − 1)) (``exp``); 1 after ``steps``.
    """
    if schedule == "none" or step >= steps:
        return 1.0
    share = step / steps
    alpha = {"linear": share, "log": 1 - math.exp(-5 * share), "exp": math.exp(5 * (share - 1))}[schedule]
    return alpha * (1 - 1 / num_classes) + 1 / num_classes


def annealed_cross_entropy(
    logits: Tensor, labels: Tensor, bound: float, label_smoothing: float, runtime: Runtime
) -> Tensor:
    """Mean cross-entropy of the images whose class is not likelier than ``bound`` (0–1) yet; 0 if there are none.

    (B, C) and (B,) → scalar; UDA's "training signal annealing" at one value of the bound. The mean of
    several processes' losses is the mean over all their images.
    """
    each = functional.cross_entropy(full_precision(logits), labels, reduction="none", label_smoothing=label_smoothing)
    confidence = full_precision(logits.detach()).softmax(dim=1).gather(1, labels[:, None])[:, 0]
    mask = confidence <= bound
    count = mask.sum(dtype=each.dtype)
    if bound < 1:  # at 1 no image is left out, and processes need not ask one another
        (count,) = runtime.means([count])
    return (each * mask).sum() / torch.where(count > 0, count, 1)


class UDA(Algorithm):
    """One network that has to see strongly noised images as it sees weakly noised ones."""

    Config = UDAConfig
    views = {"labeled": ("image", "label"), "unlabeled": ("image_weak", "image", "label")}

    @classmethod
    def needs(cls, config: UDAConfig) -> Needs:
        """Where labeled images may be left out, the loss is divided by the number of the others."""
        return Needs(cls.views, whole_batch=config.annealing != "none" or config.labeled_confidence < 1)

    def loss(self, batch: Batch, step: int, runtime: Runtime) -> dict[str, Tensor]:
        """See the module's docstring."""
        labeled, unlabeled, config = batch["labeled"], batch["unlabeled"], self.config
        logits = runtime.logits(
            self.student, labeled=labeled["image"], unlabeled_weak=unlabeled["image_weak"], unlabeled=unlabeled["image"]
        )
        rising = annealed_bound(step, config.annealing_steps, logits["labeled"].shape[1], config.annealing)
        bound = min(config.labeled_confidence, rising)
        labeled_loss = annealed_cross_entropy(
            logits["labeled"], labeled["label"], bound, config.label_smoothing, runtime
        )
        unlabeled_loss, share = consistency_loss(
            logits["unlabeled_weak"], logits["unlabeled"], unlabeled["label"], config.temperature, config.threshold
        )
        return {
            "loss": labeled_loss + config.factor * ramp(step, 0, config.ramp_steps) * unlabeled_loss,
            "labeled_loss": labeled_loss,
            "unlabeled_loss": unlabeled_loss,
            "confident_share": share,
            "labeled_accuracy": accuracy(logits["labeled"], labeled["label"]),
        }
