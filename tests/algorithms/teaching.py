"""A teacher, a student and a batch, small enough to enumerate: what the tests of feedback are about."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional

from selftrain.algorithms.meta_pseudo_labels import MetaPseudoLabels, MetaPseudoLabelsConfig
from selftrain.learning.algorithm import Batch
from selftrain.learning.runtime import Gradient, Runtime
from selftrain.params.train import TrainConfig
from selftrain.training.optimization import Descent
from tests.algorithms.given import GivenNetworks
from tests.training.conftest import TINY

CLASSES, PIXELS, UNLABELED, LABELED = 3, 12, 3, 5
PLAIN = {"optimizer": "sgd", "optimizer_options": {"nesterov": False}, "warmup": 0, "schedule": "constant"}


@pytest.fixture(autouse=True)
def in_float64() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def network(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(PIXELS, 4), nn.Tanh(), nn.Linear(4, CLASSES))


class Recorded(Descent):
    """A teacher's minimizer that keeps the gradients it is given, and takes no step."""

    def descend(self, gradient: Gradient) -> None:
        self.taken = gradient


class Case:
    """A teacher, a student and a batch; the teacher stands still and the student takes plain SGD steps."""

    def __init__(self, learning_rate: float = 0.1, optimizer: dict[str, Any] | None = None, **config: Any) -> None:
        plain = {
            "feedback": "dot_product",
            "feedback_at": "plain_step",
            "teacher_loss": "supervised",
            "baseline": False,
        }
        self.teacher, self.student = network(1), network(2)
        own = MetaPseudoLabelsConfig.model_validate(plain | config)
        self.algorithm = MetaPseudoLabels(self.student, own, GivenNetworks(lambda _: self.teacher))
        options = {"optimizer_options": {"momentum": 0, "nesterov": False}, "weight_decay": 0} | (optimizer or {})
        train = TrainConfig.model_validate(TINY | PLAIN | {"learning_rate": learning_rate} | options)
        self.descent = Descent(self.student, train, 10, 1)
        self.recorded = Recorded(self.teacher, train, 10, 1)
        self.runtime = Runtime({"student": self.descent, "teacher": self.recorded})
        generator = torch.Generator().manual_seed(0)
        unlabeled = torch.randn(UNLABELED, 3, 2, 2, generator=generator)
        self.batch: Batch = {
            "labeled": {
                "image": torch.randn(LABELED, 3, 2, 2, generator=generator),
                "label": torch.arange(LABELED) % CLASSES,
                "uniform": torch.zeros(LABELED),
            },
            "unlabeled": {
                "image": unlabeled,
                "image_weak": unlabeled,
                "label": torch.full((UNLABELED,), -1),
                "uniform": torch.full((UNLABELED,), 0.5),
            },
        }

    def update(self, labels: tuple[int, ...] | None = None) -> dict[str, Tensor]:
        """One step, in which the teacher draws just these labels."""
        if labels is not None:
            probs = self.teacher(self.batch["unlabeled"]["image"]).softmax(dim=1)
            upper = probs.cumsum(dim=1)[torch.arange(UNLABELED), torch.tensor(labels)]
            own = probs[torch.arange(UNLABELED), torch.tensor(labels)]
            self.batch["unlabeled"]["uniform"] = (upper - own / 2).detach()
        return self.algorithm.update(self.batch, 0, self.runtime)

    def feedback_gradient(self) -> Tensor:
        """The teacher's last gradient less that of its supervised loss, flat."""
        labeled = self.batch["labeled"]
        loss = functional.cross_entropy(self.teacher(labeled["image"]), labeled["label"])
        supervised = torch.autograd.grad(loss, [*self.teacher.parameters()])
        return flat(self.recorded.taken) - flat(supervised)


def labeled_loss(student: nn.Module, parameters: dict[str, Tensor], batch: Batch) -> Tensor:
    logits = functional_call(student, parameters, (batch["labeled"]["image"],))
    return functional.cross_entropy(logits, batch["labeled"]["label"])


def flat(gradient: Gradient) -> Tensor:
    return torch.cat([part.reshape(-1) for part in gradient if part is not None])
