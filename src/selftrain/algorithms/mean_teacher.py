"""Mean Teacher: Tarvainen and Valpola, "Mean teachers are better role models", NeurIPS 2017, arXiv 1703.01780.

The teacher is the moving average of the student's weights; the student has to see an image as the teacher sees it under
other noise:

    L = CE(y, f(x)) + λ(t) · 1/B · Σ ‖softmax f(strong(u)) − softmax f_average(weak(u))‖² / C

over labeled and unlabeled images in the paper, over the unlabeled ones here. λ rises as exp(−5 (1 − t)²) over
``ramp_steps``. The average is the one that ``train.ema_decay`` keeps and the run exports: the paper's result is its
teacher, too. The paper's decay is 0.99 while λ rises (``train.ema_first``), then 0.999, and its code has ``ema_warmup:
mean_teacher``. Its pass is in eval mode, with averaged BatchNorm statistics; the paper's code uses the batch's.
"""

import math

from pydantic import Field
from torch import Tensor
from torch.nn import functional

from selftrain.learning.algorithm import Algorithm, Batch, Needs
from selftrain.learning.losses import accuracy, full_precision
from selftrain.learning.runtime import Runtime
from selftrain.plumbing.sections import Section


class MeanTeacherConfig(Section):
    """``train.algorithm`` of Mean Teacher."""

    factor: float = Field(default=100.0, ge=0)
    """λ after the ramp; the paper's 100 is for the mean over C classes of squared differences."""
    ramp_steps: int = Field(default=0, ge=0)


def squared_difference(student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
    """Mean over images and classes of the squared difference of two distributions; (B, C) twice → scalar."""
    return functional.mse_loss(
        full_precision(student_logits).softmax(dim=1), full_precision(teacher_logits).softmax(dim=1)
    )


def sigmoid_ramp(step: int, steps: int) -> float:
    """exp(−5 (1 − step / steps)²) up to ``steps``, then 1."""
    return 1.0 if step >= steps else math.exp(-5 * (1 - step / steps) ** 2)


class MeanTeacher(Algorithm):
    """One network that follows the moving average of its own weights."""

    Config = MeanTeacherConfig
    views = {"labeled": ("image", "label"), "unlabeled": ("image_weak", "image")}

    @classmethod
    def needs(cls, config: MeanTeacherConfig) -> Needs:
        """The average of its weights, which is the teacher."""
        return Needs(cls.views, average=True)

    def loss(self, batch: Batch, step: int, runtime: Runtime) -> dict[str, Tensor]:
        """See the module's docstring."""
        labeled, unlabeled = batch["labeled"], batch["unlabeled"]
        logits = runtime.logits(self.student, labeled=labeled["image"], unlabeled=unlabeled["image"])
        labeled_loss = functional.cross_entropy(full_precision(logits["labeled"]), labeled["label"])
        consistency = squared_difference(logits["unlabeled"], runtime.average(unlabeled["image_weak"]))
        return {
            "loss": labeled_loss + self.config.factor * sigmoid_ramp(step, self.config.ramp_steps) * consistency,
            "labeled_loss": labeled_loss,
            "unlabeled_loss": consistency,
            "labeled_accuracy": accuracy(logits["labeled"], labeled["label"]),
        }
