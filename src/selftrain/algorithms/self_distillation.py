"""Self-distillation: the teacher is the student's own kind.

``generation``: Born-Again Networks (Furlanello et al., ICML 2018, arXiv 1805.04770): a student of the teacher's
architecture learns labels and the teacher's predictions, becomes the teacher of the next generation, and so on; a
generation is a round. The paper adds both losses at temperature 1: ``alpha: 1``, ``label_weight: 1``,
``temperature: 1``, the defaults here. Its ensemble of generations is one more model, made by the stage ``adopt``.

``average``: no teacher from before: the moving average of the student's own weights is asked about the weakly noised
view of each image, as in Mean Teacher, and the student has to say so of the noised one. The average knows nothing at
first: ``delay_steps``.
"""

from typing import Any, Literal

from pydantic import Field
from torch import Tensor

from selftrain.learning.algorithm import Needs
from selftrain.learning.runtime import Runtime
from selftrain.learning.soft_targets import DistillingAlgorithm, SoftTargetsConfig, views_of


class SelfDistillationConfig(SoftTargetsConfig):
    """``train.algorithm`` of self-distillation."""

    teacher: Literal["generation", "average"] = "generation"
    temperature: float = Field(default=1.0, gt=0)
    alpha: float = Field(default=1.0, ge=0, le=1)
    label_weight: float | None = Field(default=1.0, ge=0)


class SelfDistillation(DistillingAlgorithm):
    """A student of its last generation, or of its own average."""

    Config = SelfDistillationConfig
    config: SelfDistillationConfig

    @classmethod
    def needs(cls, config: Any) -> Needs:
        """The last generation's table, or the average."""
        if config.teacher == "average":
            return Needs(views_of(config, "image_weak"), average=True)
        return Needs(views_of(config, "log_probs"))

    def teacher_log_probs(self, views: dict[str, Tensor], runtime: Runtime) -> Tensor:
        """Of the table, or of the average."""
        if self.config.teacher == "generation":
            return views["log_probs"]
        return runtime.average(views["image_weak"])
