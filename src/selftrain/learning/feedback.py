"""A teacher that learns from what its labels do to a student: Pham, Dai, Xie and Le, "Meta Pseudo Labels", CVPR 2021,
arXiv 2003.10580, Section 2 and Appendices A and C.3.

With labels ŷ that the teacher T gave to unlabeled images u, the student S at θ takes a step, and the labeled loss
there says how good the labels were:

    g  = ∇CE(ŷ, S(u; θ))         θ' = θ − η·g         h = η · ∇CE(y, S(x; θ'))ᵀ · g          (Equation 12)

The teacher descends h · CE(ŷ, T(u)). η·g is what a plain SGD step moves, so h is, to first order, by how much the
labeled loss *falls*: a positive h makes the sampled labels likelier. Where the student's optimizer is another one,
``feedback_at`` says what takes the place of this step. The labeled images pass through the student without dropout, and
do not change its BatchNorm statistics: the student depends on labeled images through the teacher alone.
"""

from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from typing import Any, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional

from selftrain.learning.algorithm import Algorithm, Batch, Needs, Networks
from selftrain.learning.gradients import cosine, dot_product, plain_step, sampled_labels
from selftrain.learning.losses import accuracy, full_precision, one_hot, smoothed, soft_cross_entropy
from selftrain.learning.runtime import Gradient, Runtime, added, copied
from selftrain.plumbing.errors import UserError
from selftrain.plumbing.sections import Section


class FeedbackConfig(Section):
    """How the teacher labels, and how the student's progress comes back to it."""

    feedback: Literal["cosine", "dot_product", "finite_difference", "exact", "none"] = "cosine"
    """h. ``dot_product``: Equation 12. ``cosine``: of the two gradients, without η, from -1 to 1 (Appendix C.3: what
    the paper says it used). ``finite_difference``: the labeled loss at θ less that at θ', as the authors' code takes
    it. ``exact``: no h but the derivative of the labeled loss through the student's step, for ``labels: soft``
    (Equation 3). ``none``: the teacher learns nothing from the student, which is parallel pseudo-labeling."""
    feedback_sign: Literal["paper", "authors_code"] = "paper"
    """``authors_code`` turns h round: the code takes the new loss less the old, and so makes labels likelier that
    hurt."""
    feedback_at: Literal["own_step", "plain_step", "new_student"] = "own_step"
    """θ': after the optimizer's own step, or after a plain SGD step. ``own_step`` compares it with the same step at a
    zero gradient, so that momentum and weight decay cancel. ``plain_step``, as in the derivation and its paper's
    presets, is for SGD: of Adam and its kin, whose steps have other directions than gradients, every sixth h has the
    wrong sign. ``new_student``, as in the authors' code, saves copies of the weights and lets momentum and weight decay
    into h."""
    feedback_factor: float = Field(default=1.0, ge=0)
    """h is multiplied by it: a learning rate of its own for the feedback."""
    baseline: bool = True
    """Subtract h's moving average, which lowers its variance (Appendix C.3); not for ``exact``."""
    baseline_decay: float = Field(default=0.99, ge=0, lt=1)
    student_labeled_factor: float = Field(default=0.0, ge=0)
    """Of the student's own loss on labeled images. 0, as in Section 2: it sees none; 1: as Noisy Student has it."""
    labels: Literal["hard", "argmax", "soft"] = "hard"
    """``hard``: drawn from the teacher's distribution, as in the paper. ``argmax``: its likeliest class, as in
    reimplementations; it explores nothing. ``soft``: the distribution itself; with another feedback than ``exact``, as
    in the authors' code, ∇CE(T, T) is zero and the teacher gets no feedback at all."""
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    """Of every label, the student's and the teacher's."""
    student_wait_steps: int = Field(default=0, ge=0)
    """Steps in which the teacher learns alone; the student's schedule begins after them."""

    @model_validator(mode="after")
    def _exact_needs_soft_labels(self) -> "FeedbackConfig":
        if self.feedback == "exact" and self.labels != "soft":
            raise ValueError("`feedback: exact` differentiates through the labels: set `labels: soft`")
        elsewhere = "feedback_at" in self.model_fields_set and self.feedback_at != "plain_step"
        if self.feedback == "exact" and (elsewhere or self.feedback_sign != "paper"):
            raise ValueError("`feedback: exact` is the derivative at `feedback_at: plain_step`, and has no other sign")
        return self


class TeachingAlgorithm(Algorithm):
    """A student that learns from its teacher's labels alone, and a teacher that learns from the student's progress.

    A subclass makes ``self.teacher`` and writes ``teacher_step``. Batches need ``image`` and ``label`` of labeled
    images, and ``image``, ``label`` and ``uniform`` of unlabeled ones.
    """

    networks = ("teacher",)
    teacher: nn.Module
    baseline: Tensor
    """The moving average of h."""

    def __init__(self, student: nn.Module, config: Any, networks: Networks) -> None:
        super().__init__(student, config, networks)
        self.register_buffer("baseline", torch.zeros(()))

    def teacher_step(self, batch: Batch, step: int, runtime: Runtime) -> tuple[Tensor, dict[str, Tensor]]:
        """The teacher's logits (r·B, C) of the unlabeled images, and its losses but for the feedback.

        ``teacher_loss`` is the one to descend; the others are logged.
        """
        raise NotImplementedError

    @classmethod
    def check(cls, config: Any, total_steps: int) -> None:
        """The student has to begin before the training ends."""
        if total_steps <= config.student_wait_steps:
            raise UserError("train.algorithm.student_wait_steps: the training ends before the student begins")

    @classmethod
    def needs(cls, config: Any) -> Needs:
        """The teacher's network; second derivatives for exact feedback."""
        return Needs(cls.views, cls.networks, second_derivatives=config.feedback == "exact")

    def trained_networks(self) -> dict[str, nn.Module]:
        """Both."""
        return {"student": self.student, "teacher": self.teacher}

    def first_step(self, network: str) -> int:
        """The student may wait."""
        return int(self.config.student_wait_steps) if network == "student" else 0

    def update(self, batch: Batch, step: int, runtime: Runtime) -> dict[str, Tensor]:
        """One step of both networks; see the module's docstring."""
        with runtime.autocast():
            teacher_logits, losses = self.teacher_step(batch, step, runtime)  # (r·B, C)
        if step < self.first_step("student"):
            runtime.descend(losses["teacher_loss"], ["teacher"])
            return {name: value.detach() for name, value in losses.items()} | {"loss": losses["teacher_loss"].detach()}
        labels, targets = self._targets(teacher_logits, batch["unlabeled"])
        with runtime.autocast():
            student_loss, own_loss, agreement = self._student_losses(batch, labels, targets, runtime)
        if self.config.feedback == "exact":
            gradient, found = self._differentiated(student_loss, own_loss, batch, runtime)
        else:
            gradient, found = self._measured(student_loss, own_loss, teacher_logits, labels, batch, runtime)
        runtime.descend(losses["teacher_loss"] + found["feedback_loss"], ["teacher"])
        if self.config.feedback_at != "new_student":
            runtime.minimizers["student"].descend(gradient)
        losses |= found | {"loss": student_loss + own_loss, "agreement_with_teacher": agreement}
        return {name: value.detach() for name, value in losses.items()}

    def _student_losses(
        self, batch: Batch, labels: Tensor, targets: Tensor, runtime: Runtime
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The student's cross-entropy against the teacher's labels, its own on labeled images times its factor, and how
        often it agrees with the teacher.
        """
        unlabeled, factor = batch["unlabeled"]["image"], self.config.student_labeled_factor
        if not factor:
            logits = runtime.logits(self.student, unlabeled=unlabeled)["unlabeled"]  # (r·B, C)
            return soft_cross_entropy(logits, targets).mean(), logits.new_zeros(()), accuracy(logits, labels)
        both = runtime.logits(self.student, labeled=batch["labeled"]["image"], unlabeled=unlabeled)
        supervised_loss = functional.cross_entropy(
            full_precision(both["labeled"]), batch["labeled"]["label"], label_smoothing=self.config.label_smoothing
        )
        logits = both["unlabeled"]
        return soft_cross_entropy(logits, targets).mean(), factor * supervised_loss, accuracy(logits, labels)

    def _targets(self, teacher_logits: Tensor, unlabeled: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """The student's hard labels (r·B,) and target distributions (r·B, C); a person's labels stand as they are."""
        known, num_classes = unlabeled["label"], teacher_logits.shape[1]
        drawn = self.config.labels == "hard"
        labels = (
            sampled_labels(teacher_logits, unlabeled["uniform"]) if drawn else teacher_logits.detach().argmax(dim=1)
        )
        labels = torch.where(known >= 0, known, labels)
        hard = smoothed(one_hot(labels, num_classes), self.config.label_smoothing)
        if self.config.labels != "soft":
            return labels, hard
        # With `exact` the teacher is reached through them; otherwise nothing differentiates them.
        soft = full_precision(teacher_logits).softmax(dim=1)
        soft = soft if self.config.feedback == "exact" else soft.detach()
        soft = smoothed(soft, self.config.label_smoothing)
        return labels, torch.where((known >= 0)[:, None], hard, soft)

    def _measured(
        self,
        student_loss: Tensor,
        own_loss: Tensor,
        teacher_logits: Tensor,
        labels: Tensor,
        batch: Batch,
        runtime: Runtime,
    ) -> tuple[Gradient, dict[str, Tensor]]:
        """The student's gradient, and ``feedback_loss``, which is the teacher's, with what it is made of.

        h is about the teacher's labels alone: what the student learns of labeled images is part of its step before
        them. Where h is measured at the new student, the student has taken its step afterwards.
        """
        config, student = self.config, runtime.minimizers["student"]
        rate, labeled = student.learning_rate, batch["labeled"]
        twice = config.student_labeled_factor > 0
        gradient = runtime.gradient(student_loss, student.parameters, retain_graph=twice)
        own = runtime.gradient(own_loss, student.parameters) if twice else None
        whole = gradient if own is None else added(gradient, own)
        # θ and θ', and what the teacher's labels moved but for a factor.
        start = student.parameters
        moved, factor = gradient, rate
        if config.feedback_at == "own_step":
            still = tuple(None if slope is None else torch.zeros_like(slope) for slope in gradient)
            start, there = student.stepped(own or still), student.stepped(whole)
            moved, factor = tuple(old - new for old, new in zip(start, there, strict=True)), 1.0
        elif own is not None:
            start = plain_step(start, own, rate)
        before = None
        if config.feedback == "finite_difference":
            with torch.no_grad(), student.at(start):
                before, _ = self._labeled(labeled, runtime)
        if config.feedback_at == "plain_step":
            there = plain_step(start, gradient, rate)
        elif config.feedback_at == "new_student":
            student.descend(copied(whole))
            there = student.parameters
        differentiated = config.feedback in ("cosine", "dot_product")
        with torch.set_grad_enabled(differentiated), student.at(there):
            labeled_loss, labeled_accuracy = self._labeled(labeled, runtime)
            labeled_gradient = runtime.gradient(labeled_loss, student.parameters) if differentiated else ()
        feedback = self._feedback(moved, factor, labeled_gradient, before, labeled_loss.detach(), runtime)
        return whole, {
            "student_labeled_loss": labeled_loss,
            "student_labeled_accuracy": labeled_accuracy,
            "feedback": feedback,
            "feedback_baseline": self.baseline.clone(),
            "feedback_loss": self._feedback_loss(feedback, teacher_logits, labels, batch["unlabeled"]["label"]),
        }

    def _differentiated(
        self, student_loss: Tensor, own_loss: Tensor, batch: Batch, runtime: Runtime
    ) -> tuple[Gradient, dict[str, Tensor]]:
        """The same for ``exact``: ``feedback_loss`` has the derivative through the student's step."""
        config, student = self.config, runtime.minimizers["student"]
        rate = student.learning_rate
        slopes: Gradient = torch.autograd.grad(
            student_loss, list(student.parameters), create_graph=True, allow_unused=True
        )
        means = iter(runtime.means([slope for slope in slopes if slope is not None]))
        gradient = tuple(None if slope is None else next(means) for slope in slopes)
        whole, start = gradient, student.parameters
        if config.student_labeled_factor:
            own = runtime.gradient(own_loss, student.parameters, retain_graph=True)
            whole, start = added(gradient, own), plain_step(start, own, rate)
        # The derivative needs the student as it is, so its step is taken by a copy of the weights.
        there = [weight.requires_grad_() for weight in plain_step(start, gradient, rate)]
        names = (name for name, parameter in self.student.named_parameters() if parameter.requires_grad)
        moved = dict(self.student.named_parameters()) | dict(zip(names, there, strict=True))
        statistics = {name: value.clone() for name, value in self.student.named_buffers()}
        stepped = partial(functional_call, self.student, moved | statistics)
        labeled_loss, labeled_accuracy = self._labeled(batch["labeled"], runtime, stepped)
        feedback = rate * dot_product(runtime.gradient(labeled_loss, there), slopes)
        return whole, {
            "student_labeled_loss": labeled_loss,
            "student_labeled_accuracy": labeled_accuracy,
            "feedback": feedback,
            # Minimised as it is: its derivative by the teacher is that of the labeled loss at θ'.
            "feedback_loss": -config.feedback_factor * feedback,
        }

    def _feedback(
        self,
        moved: Gradient,
        factor: float,
        labeled_gradient: Gradient,
        before: Tensor | None,
        after: Tensor,
        runtime: Runtime,
    ) -> Tensor:
        """h, a scalar; positive if the labels helped, whichever way it is measured."""
        if self.config.feedback == "cosine":
            return cosine(labeled_gradient, moved)
        if self.config.feedback == "dot_product":
            return factor * dot_product(labeled_gradient, moved)
        if before is not None:
            (difference,) = runtime.means([before - after])
            return difference
        return torch.zeros_like(after)

    def _feedback_loss(self, feedback: Tensor, teacher_logits: Tensor, labels: Tensor, known: Tensor) -> Tensor:
        """The loss h · CE(ŷ, T(u)), h less its moving average so far; what a person labeled is nothing that the teacher
        chose.
        """
        config = self.config
        advantage = feedback
        if config.baseline:
            advantage = feedback - self.baseline
            self.baseline.lerp_(feedback.to(self.baseline), 1 - config.baseline_decay)
        if config.feedback_sign == "authors_code":
            advantage = -advantage
        if config.labels == "soft":
            each = soft_cross_entropy(teacher_logits, full_precision(teacher_logits.detach()).softmax(dim=1))
        else:
            each = functional.cross_entropy(full_precision(teacher_logits), labels, reduction="none")
        factor: float = config.feedback_factor
        return factor * advantage.detach() * (each * (known < 0)).mean()

    def _labeled(
        self, labeled: dict[str, Tensor], runtime: Runtime, student: Callable[..., Tensor] | None = None
    ) -> tuple[Tensor, Tensor]:
        """The loss and accuracy on labeled images, without noise inside the student: as it is, or as another is."""
        # A difference of two losses in half precision would be rounding and nothing else.
        precision = nullcontext() if self.config.feedback == "finite_difference" else runtime.autocast()
        with precision, runtime.noise(self.student, {"feedback": len(labeled["image"])}):
            logits = (student or self.student)(labeled["image"])  # (B, C)
        return functional.cross_entropy(full_precision(logits), labeled["label"]), accuracy(logits, labeled["label"])
