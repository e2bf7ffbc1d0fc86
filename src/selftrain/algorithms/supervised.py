"""Supervised training on the labeled images: the teacher of the first round, and the control.

The loss is the mean cross-entropy of the labeled batch, with optional label smoothing.
"""

from pydantic import Field
from torch import Tensor
from torch.nn import functional

from selftrain.learning.algorithm import Algorithm, Batch
from selftrain.learning.losses import accuracy, full_precision
from selftrain.learning.runtime import Runtime
from selftrain.plumbing.sections import Section


class SupervisedConfig(Section):
    """``train.algorithm`` of a supervised run."""

    label_smoothing: float = Field(default=0.0, ge=0, lt=1)


class Supervised(Algorithm):
    """Cross-entropy on labeled images."""

    Config = SupervisedConfig
    views = {"labeled": ("image", "label")}

    def loss(self, batch: Batch, step: int, runtime: Runtime) -> dict[str, Tensor]:
        """See the module's docstring."""
        images, labels = batch["labeled"]["image"], batch["labeled"]["label"]  # (B, 3, H, W), (B,)
        logits = runtime.logits(self.student, labeled=images)["labeled"]  # (B, C)
        loss = functional.cross_entropy(full_precision(logits), labels, label_smoothing=self.config.label_smoothing)
        return {"loss": loss, "labeled_accuracy": accuracy(logits, labels)}
