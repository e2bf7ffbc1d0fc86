"""Knowledge distillation: Hinton, Vinyals and Dean, arXiv 1503.02531. The loss is in ``soft_targets.py``.

The teacher is the round's: any run, a model from elsewhere or several averaged (the stage ``adopt``). Its prediction is
read from its prediction table, which it was asked for once, about the clean image; or it is run along and sees the very
view that the student sees: the "consistent teacher" of Beyer et al., "A good teacher is patient and consistent", CVPR
2022, arXiv 2106.05237, Section 3.
"""

from typing import Any, Literal

from torch import Tensor, nn

from selftrain.learning.algorithm import Needs, Networks
from selftrain.learning.runtime import Runtime
from selftrain.learning.soft_targets import DistillingAlgorithm, SoftTargetsConfig, views_of


class DistillationConfig(SoftTargetsConfig):
    """``train.algorithm`` of knowledge distillation."""

    teacher: Literal["table", "live"] = "table"
    """``table``: the teacher's prediction table; ``live``: the teacher, on the student's own view."""


class Distillation(DistillingAlgorithm):
    """A student of the round's teacher."""

    Config = DistillationConfig
    config: DistillationConfig

    @classmethod
    def needs(cls, config: DistillationConfig) -> Needs:
        """The teacher's table, or the teacher."""
        if config.teacher == "live":
            return Needs(views_of(config), teacher=True)
        return Needs(views_of(config, "log_probs"))

    def __init__(self, student: nn.Module, config: Any, networks: Networks) -> None:
        super().__init__(student, config, networks)
        self.teacher = networks.teacher() if config.teacher == "live" else None

    def teacher_log_probs(self, views: dict[str, Tensor], runtime: Runtime) -> Tensor:
        """Of the table, or of the teacher."""
        return views["log_probs"] if self.teacher is None else self.teacher.log_probs(views["image"])
