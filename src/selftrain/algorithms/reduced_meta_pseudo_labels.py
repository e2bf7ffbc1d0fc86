"""Reduced Meta Pseudo Labels: Pham, Dai, Xie and Le, arXiv 2003.10580, Appendix E.

A large teacher T is trained to the end. Its prediction of every unlabeled image is read from its prediction table, so
memory holds one network of the student's size. A reduced teacher T', a perceptron of five layers, learns from the
student's progress: it maps T's distribution to a better one. It descends

    h · CE(ŷ, T'(p)) + κ · CE(p, T'(p)),    p = T(u) from the table, ŷ drawn from T'(p)

with h as in ``feedback.py``. The paper says that T' is close to the identity; two ways to have that are here, and it
does not say which it took: ``residual`` adds the perceptron's output to log p, from zero at first, and κ
(``identity_factor``) holds T' to T. An image that a person corrected has its label in the table and keeps it.

The paper has it both ways whether the student sees labeled images: like Meta Pseudo Labels it fine-tunes afterwards;
"the only difference" to Noisy Student, which trains on them, is the adapting teacher. ``student_labeled_factor: 1``
is the second.
"""

from dataclasses import replace
from itertools import pairwise

from pydantic import Field, model_validator
from torch import Tensor, nn

from selftrain.learning.algorithm import Batch, Needs, Networks
from selftrain.learning.feedback import FeedbackConfig, TeachingAlgorithm
from selftrain.learning.losses import full_precision, soft_cross_entropy
from selftrain.learning.runtime import Runtime

LAYERS = 5


class ReducedMetaPseudoLabelsConfig(FeedbackConfig):
    """``train.algorithm`` of Reduced Meta Pseudo Labels."""

    hidden: int = Field(default=128, ge=1)
    """Units of each hidden layer; 128 for CIFAR-10 and 512 for ImageNet in the paper."""
    residual: bool = True
    """Whether T' is log p plus the perceptron, which is zero at first; otherwise it is the perceptron alone."""
    identity_factor: float = Field(default=0.0, ge=0)
    """κ. Without ``residual`` it has to be positive, with ``student_wait_steps`` to learn the identity in."""

    @model_validator(mode="after")
    def _near_the_identity(self) -> "ReducedMetaPseudoLabelsConfig":
        if not self.residual and self.identity_factor == 0:
            raise ValueError("`residual: false` starts from noise: give `identity_factor`, say 1")
        return self


class ReducedTeacher(nn.Module):
    """A perceptron with ReLU from one distribution over C classes to another."""

    def __init__(self, num_classes: int, hidden: int, residual: bool) -> None:
        super().__init__()
        sizes = [num_classes, *[hidden] * (LAYERS - 1), num_classes]
        layers: list[nn.Module] = []
        for inputs, outputs in pairwise(sizes):
            layers += [nn.Linear(inputs, outputs), nn.ReLU()]
        self.perceptron = nn.Sequential(*layers[:-1])
        self.residual = residual
        if residual:
            last = self.perceptron[-1]
            assert isinstance(last, nn.Linear)
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)

    def forward(self, log_probs: Tensor) -> Tensor:
        """T's log-probabilities (B, C) → logits (B, C)."""
        logits: Tensor = self.perceptron(full_precision(log_probs).exp())
        return full_precision(log_probs) + logits if self.residual else logits


class ReducedMetaPseudoLabels(TeachingAlgorithm):
    """A student, and a reduced teacher between it and a prediction table."""

    Config = ReducedMetaPseudoLabelsConfig
    views = {"labeled": ("image", "label"), "unlabeled": ("image", "label", "uniform", "log_probs")}

    @classmethod
    def needs(cls, config: ReducedMetaPseudoLabelsConfig) -> Needs:
        """The reduced teacher is made here."""
        return replace(super().needs(config), layers=cls.networks)

    def __init__(self, student: nn.Module, config: ReducedMetaPseudoLabelsConfig, networks: Networks) -> None:
        super().__init__(student, config, networks)
        num_classes = student.num_classes
        assert isinstance(num_classes, int)
        self.teacher = ReducedTeacher(num_classes, config.hidden, config.residual)

    def teacher_step(self, batch: Batch, step: int, runtime: Runtime) -> tuple[Tensor, dict[str, Tensor]]:
        """The reduced teacher's prediction of the table's rows."""
        log_probs = batch["unlabeled"]["log_probs"]
        teacher_logits = self.teacher(log_probs)  # (r·B, C)
        identity = soft_cross_entropy(teacher_logits, full_precision(log_probs).exp()).mean()
        kept = (teacher_logits.argmax(dim=1) == log_probs.argmax(dim=1)).float().mean()
        return teacher_logits, {
            "teacher_loss": self.config.identity_factor * identity,
            "identity_loss": identity,
            "labels_kept": kept,
        }
