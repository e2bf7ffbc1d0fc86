"""A student that learns a teacher's distribution: what the distilling algorithms share.

Hinton, Vinyals and Dean, "Distilling the knowledge in a neural network", arXiv 1503.02531, Section 2: with p_T and q_T
the teacher's and the student's distributions at temperature T,

    α · T² · 1/N · Σ KL(p_T(x) ‖ q_T(x)) + (1 − α) · 1/B · Σ CE(y, q_1(x))

The first mean is over all N images that are distilled on, labeled or not, the second over the B labeled ones. T² stays
whatever α is. An image that a person corrected has its label as the teacher's opinion.
"""

from typing import Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor
from torch.nn import functional

from selftrain.algorithms.algorithm import Algorithm, Batch, Views
from selftrain.algorithms.losses import accuracy, certain, distillation_loss, full_precision, ramp
from selftrain.config import Section

DistillOn = Literal["labeled", "unlabeled", "both"]


def sources(distill_on: DistillOn) -> tuple[str, ...]:
    """The batch's sources that are distilled on."""
    return ("labeled", "unlabeled") if distill_on == "both" else (distill_on,)


class SoftTargetsConfig(Section):
    """What every distilling algorithm may be told."""

    temperature: float = Field(default=4.0, gt=0)
    """T of both distributions."""
    alpha: float = Field(default=0.9, ge=0, le=1)
    """Weight of the teacher's opinion; the labels' is 1 − α."""
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


def views_of(config: SoftTargetsConfig, *opinion: str) -> Views:
    """A batch's views where the teacher's opinion is had from ``opinion``: other views, or ``log_probs``."""
    of = sources(config.distill_on)
    labeled = ("image", "label", *(opinion if "labeled" in of else ()))
    return {"labeled": labeled} | ({"unlabeled": ("image", "label", *opinion)} if "unlabeled" in of else {})


class DistillingAlgorithm(Algorithm):
    """A student of somebody's opinions. A subclass says in ``opinion`` whose."""

    config: SoftTargetsConfig
    shrinks = True

    def opinion(self, views: dict[str, Tensor]) -> Tensor:
        """The teacher's log-probabilities (B, C) of one source's images."""
        raise NotImplementedError

    def opinions(self, batch: Batch) -> Tensor:
        """The teacher's log-probabilities (N, C) of all the images distilled on; a person's label is beyond doubt."""
        found = []
        for source in sources(self.config.distill_on):
            own = full_precision(self.opinion(batch[source])).detach()
            if source == "unlabeled":
                known = batch[source]["label"]
                own = torch.where((known >= 0)[:, None], certain(known.clamp(min=0), own.shape[1]), own)
            found.append(own)
        return torch.cat(found)

    def loss(self, batch: Batch, step: int) -> dict[str, Tensor]:
        """See the module's docstring."""
        logits = self.student_logits(**{source: views["image"] for source, views in batch.items()})
        return self.weighed(logits, batch, step)

    def weighed(self, logits: dict[str, Tensor], batch: Batch, step: int) -> dict[str, Tensor]:
        """The loss of the student's logits (B, C) by source."""
        labels = batch["labeled"]["label"]
        student = torch.cat([logits[source] for source in sources(self.config.distill_on)])  # (N, C)
        teacher = self.opinions(batch)  # (N, C)
        alpha = self.config.alpha_at(step)
        labeled_loss = functional.cross_entropy(full_precision(logits["labeled"]), labels)
        distilled = distillation_loss(student, teacher, self.config.temperature)
        return {
            "loss": alpha * distilled + (1 - alpha) * labeled_loss,
            "labeled_loss": labeled_loss,
            "distillation_loss": distilled,
            "alpha": torch.tensor(alpha),
            "agreement_with_teacher": accuracy(student, teacher.argmax(dim=1)),
            "labeled_accuracy": accuracy(logits["labeled"], labels),
        }
