"""A teacher that goes on learning, slowly, while its student listens: online distillation with a teacher of its own.

The teacher descends its own cross-entropy on labeled images, by its own optimizer (``train.networks.teacher``: a lower
``learning_rate``; ``init: teacher`` starts it from the round's teacher) and only on every ``teacher_every``-th step;
with ``updates: alternating`` the student rests on those. The student's loss is that of ``soft_targets.py``, with what
the teacher says, in eval mode, of the student's own view. ``delay_steps``
lets a teacher that starts from nothing learn something before anyone listens.
"""

from typing import Any, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional

from selftrain.learning.algorithm import Batch, Needs, Networks, evaluating
from selftrain.learning.losses import accuracy, divergence, full_precision
from selftrain.learning.runtime import Runtime
from selftrain.learning.soft_targets import DistillingAlgorithm, SoftTargetsConfig, sources, views_of


class DynamicTeacherConfig(SoftTargetsConfig):
    """``train.algorithm`` of a dynamic teacher."""

    updates: Literal["together", "alternating"] = "together"
    teacher_every: int = Field(default=1, ge=1)
    """The teacher takes every so many-th step."""
    challenge: float = Field(default=0.0, ge=0)
    """Above 0 the teacher competes: its loss is its own cross-entropy less so many times KL(teacher ‖ student) on the
    images that are distilled on. It says what the student does not yet, as far as its labels let it."""

    @model_validator(mode="after")
    def _student_has_a_turn(self) -> "DynamicTeacherConfig":
        if self.updates == "alternating" and self.teacher_every == 1:
            raise ValueError("`updates: alternating` with `teacher_every: 1` leaves the student no step; give 2")
        return self


class DynamicTeacher(DistillingAlgorithm):
    """A student, and a teacher that is trained beside it."""

    Config = DynamicTeacherConfig
    config: DynamicTeacherConfig
    networks = ("teacher",)

    @classmethod
    def needs(cls, config: DynamicTeacherConfig) -> Needs:
        """The teacher's network."""
        return Needs(views_of(config), cls.networks)

    def __init__(self, student: nn.Module, config: Any, networks: Networks) -> None:
        super().__init__(student, config, networks)
        self.teacher = networks.new("teacher")

    def trained_networks(self) -> dict[str, nn.Module]:
        """Both."""
        return {"student": self.student, "teacher": self.teacher}

    def validated_networks(self) -> dict[str, nn.Module]:
        """The teacher."""
        return {"teacher": self.teacher}

    def learning(self, step: int) -> tuple[str, ...]:
        """Those whose turn it is."""
        if step % self.config.teacher_every:
            return ("student",)
        return ("teacher",) if self.config.updates == "alternating" else ("student", "teacher")

    @torch.no_grad()
    def teacher_log_probs(self, views: dict[str, Tensor], runtime: Runtime) -> Tensor:
        """Of the teacher as it is now."""
        with evaluating(self.teacher):
            return full_precision(self.teacher(views["image"])).log_softmax(dim=1)

    def loss(self, batch: Batch, step: int, runtime: Runtime) -> dict[str, Tensor]:
        """The sum of the losses of those whose turn it is."""
        losses: dict[str, Tensor] = {}
        runtime.share_buffers(self.teacher)
        # The student first: its teacher's pass would change BatchNorm's statistics.
        if "student" in self.learning(step):
            losses |= super().loss(batch, step, runtime)
        if "teacher" in self.learning(step):
            losses |= self._teacher_losses(batch, runtime)
        trained = [losses[name] for name in ("loss", "teacher_loss") if name in losses]
        losses["loss"] = torch.stack(trained).sum()
        return losses

    def _teacher_losses(self, batch: Batch, runtime: Runtime) -> dict[str, Tensor]:
        labeled, challenge = batch["labeled"], self.config.challenge
        challenged = sources(self.config.distill_on) if challenge else ()
        seen = {source: batch[source]["image"] for source in dict.fromkeys(("labeled", *challenged))}
        logits = runtime.logits(self.teacher, **seen)  # (B, C) of each source
        own_loss = functional.cross_entropy(full_precision(logits["labeled"]), labeled["label"])
        losses = {"teacher_loss": own_loss, "teacher_labeled_accuracy": accuracy(logits["labeled"], labeled["label"])}
        if challenge:
            said = torch.cat([full_precision(logits[source]).log_softmax(dim=1) for source in challenged])
            losses["disagreement"] = divergence(self._student_says(batch, challenged, runtime), said).mean()
            losses["teacher_loss"] = own_loss - challenge * losses["disagreement"]
        return losses

    @torch.no_grad()
    def _student_says(self, batch: Batch, of: tuple[str, ...], runtime: Runtime) -> Tensor:
        """The student's log-probabilities (N, C), in eval mode."""
        runtime.share_buffers(self.student)
        with evaluating(self.student):
            logits = self.student(torch.cat([batch[source]["image"] for source in of]))
        return full_precision(logits).log_softmax(dim=1)
