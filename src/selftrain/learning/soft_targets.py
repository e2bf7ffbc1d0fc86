"""A student that learns a teacher's distribution: what the distilling algorithms share.

Hinton, Vinyals and Dean, "Distilling the knowledge in a neural network", arXiv 1503.02531, Section 2: with p_T and q_T
the teacher's and the student's distributions at temperature T,

    α · T² · 1/N · Σ KL(p_T(x) ‖ q_T(x)) + (1 − α) · 1/B · Σ CE(y, q_1(x))

The first mean is over all N images that are distilled on, labeled or not, the second over the B labeled ones. T² stays
whatever α is. ``label_weight`` replaces 1 − α. An image that a person corrected has its label as the teacher's
prediction.
"""

from typing import Any, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor
from torch.nn import functional

from selftrain.learning.algorithm import Algorithm, Batch, Views
from selftrain.learning.losses import accuracy, certain, distillation_loss, full_precision, ramp
from selftrain.learning.runtime import Runtime
from selftrain.plumbing.errors import UserError
from selftrain.plumbing.sections import Section

DistillOn = Literal["labeled", "unlabeled", "both"]


def sources(distill_on: DistillOn) -> tuple[str, ...]:
    """The batch's sources that are distilled on."""
    return ("labeled", "unlabeled") if distill_on == "both" else (distill_on,)


class SoftTargetsConfig(Section):
    """What every distilling algorithm may be told."""

    temperature: float = Field(default=4.0, gt=0)
    """T of both distributions."""
    alpha: float = Field(default=0.9, ge=0, le=1)
    """Weight of the teacher's predictions."""
    label_weight: float | None = Field(default=None, ge=0)
    """Weight of the labels; null: 1 − α."""
    alpha_end: float | None = Field(default=None, ge=0, le=1)
    """α after ``alpha_steps``, to which it goes in a straight line: a lower one listens early. Null: α."""
    alpha_steps: int = Field(default=0, ge=0)
    delay_steps: int = Field(default=0, ge=0)
    """Steps before α begins, in which the student learns from labels alone: a teacher that is trained along has nothing
    to say at first."""
    distill_on: DistillOn = "both"

    @model_validator(mode="after")
    def _scheduled_whole(self) -> "SoftTargetsConfig":
        if (self.alpha_end is None) != (self.alpha_steps == 0):
            raise ValueError("`alpha_end` and `alpha_steps` belong together")
        return self

    def alpha_at(self, step: int) -> float:
        """α of a step."""
        if step < self.delay_steps:
            return 0.0
        if self.alpha_end is None:
            return self.alpha
        return self.alpha + (self.alpha_end - self.alpha) * ramp(step - self.delay_steps, 0, self.alpha_steps)


def views_of(config: SoftTargetsConfig, *of_teacher: str) -> Views:
    """A batch's views where the teacher's predictions come from ``of_teacher``: other views, or ``log_probs``."""
    of = sources(config.distill_on)
    labeled = ("image", "label", *(of_teacher if "labeled" in of else ()))
    return {"labeled": labeled} | ({"unlabeled": ("image", "label", *of_teacher)} if "unlabeled" in of else {})


class DistillingAlgorithm(Algorithm):
    """A student of a teacher's predictions. A subclass says in ``teacher_log_probs`` where they come from."""

    config: SoftTargetsConfig
    shrinks = True

    @classmethod
    def check(cls, config: Any, total_steps: int) -> None:
        """Distillation has to begin before the training ends."""
        if config.delay_steps >= total_steps:
            raise UserError("train.algorithm.delay_steps: the training ends before the student learns of its teacher")

    def teacher_log_probs(self, views: dict[str, Tensor], runtime: Runtime) -> Tensor:
        """The teacher's log-probabilities (B, C) of one source's images."""
        raise NotImplementedError

    def targets(self, batch: Batch, runtime: Runtime) -> Tensor:
        """The teacher's log-probabilities (N, C) of all the images distilled on; a person's label is certain."""
        found = []
        for source in sources(self.config.distill_on):
            log_probs = full_precision(self.teacher_log_probs(batch[source], runtime)).detach()
            if source == "unlabeled":
                known = batch[source]["label"]
                log_probs = torch.where(
                    (known >= 0)[:, None], certain(known.clamp(min=0), log_probs.shape[1]), log_probs
                )
            found.append(log_probs)
        return torch.cat(found)

    def loss(self, batch: Batch, step: int, runtime: Runtime) -> dict[str, Tensor]:
        """See the module's docstring."""
        logits = runtime.logits(self.student, **{source: views["image"] for source, views in batch.items()})
        return self.losses_of(logits, batch, step, runtime)

    def losses_of(self, logits: dict[str, Tensor], batch: Batch, step: int, runtime: Runtime) -> dict[str, Tensor]:
        """The loss of the student's logits (B, C) by source."""
        labels = batch["labeled"]["label"]
        student = torch.cat([logits[source] for source in sources(self.config.distill_on)])  # (N, C)
        teacher = self.targets(batch, runtime)  # (N, C)
        alpha = self.config.alpha_at(step)
        label_weight = 1 - alpha if self.config.label_weight is None else self.config.label_weight
        labeled_loss = functional.cross_entropy(full_precision(logits["labeled"]), labels)
        distilled = distillation_loss(student, teacher, self.config.temperature)
        return {
            "loss": alpha * distilled + label_weight * labeled_loss,
            "labeled_loss": labeled_loss,
            "distillation_loss": distilled,
            "alpha": torch.tensor(alpha),
            "agreement_with_teacher": accuracy(student, teacher.argmax(dim=1)),
            "labeled_accuracy": accuracy(logits["labeled"], labels),
        }
