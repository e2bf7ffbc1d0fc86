"""The contract between an algorithm and the training loop."""

import importlib
import importlib.util
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor, nn

from selftrain.config import Section, did_you_mean, parse_section
from selftrain.errors import UserError

Batch = dict[str, dict[str, Tensor]]
"""``batch["labeled" | "unlabeled"][view]``: images (B, 3, H, W), labels (B,), log_probs (B, C), lots (B,)."""

Gradient = tuple[Tensor | None, ...]
"""One tensor for each trainable parameter of a network, in their order; None where the loss does not touch it."""

NewNetwork = Callable[[str], nn.Module]
"""Makes a network by its name among an algorithm's ``networks``, as ``train.networks`` describes it."""

SHARED = {"__init__", "algorithm", "feedback", "losses"}
"""Files of this folder that are no algorithm."""


class Minimizer(Protocol):
    """Takes optimizer steps for one trained network; made by the loop."""

    @property
    def learning_rate(self) -> float:
        """Of the step under way."""

    def gradient(self, loss: Tensor, parameters: Sequence[Tensor] | None = None) -> Gradient:
        """The loss's gradient by the network's parameters, or by others of these shapes, averaged over processes.

        Nothing is clipped, decayed or carried over.
        """

    def averaged(self, tensors: Gradient) -> Gradient:
        """Their means over processes, in place."""

    def descend(self, gradient: Gradient) -> None:
        """Clip and step the optimizer. The gradient's tensors may be overwritten."""

    def minimize(self, loss: Tensor) -> None:
        """``gradient`` and ``descend``."""


class Algorithm(nn.Module):
    """Owns its networks and says what a step is. Only ``student`` is evaluated, averaged and exported.

    A subclass sets ``Config`` and ``views`` and writes ``loss``; one with several trained networks also
    writes ``trained_networks`` and ``update``.
    """

    Config: ClassVar[type[Section]] = Section
    """The algorithm's own parameters: what ``train.algorithm`` holds beside the name."""

    views: ClassVar[dict[str, tuple[str, ...]]] = {"labeled": ("image", "label")}
    """What the batch has to hold, by source. Views: see ``training.views``; ``label``, ``log_probs``; ``lot``, a number
    from 0 to 1 for each image, for what an algorithm draws."""

    networks: ClassVar[tuple[str, ...]] = ()
    """Networks beside the student, which ``train.networks`` may set up by these names."""

    needs_average: ClassVar[bool] = False
    """Whether it uses ``average``, and ``train.ema_decay`` must be set."""

    def __init__(self, student: nn.Module, config: Any, new_network: NewNetwork) -> None:
        super().__init__()
        self.student = student
        self.config = config
        self.minimizers: dict[str, Minimizer] = {}
        self.autocast: Callable[[], AbstractContextManager[object]] = nullcontext
        self.noised_rows: dict[str, Callable[[dict[str, int]], AbstractContextManager[object]]] = {}
        self.average: Callable[[Tensor], Tensor] | None = None
        """The moving average of the student's weights, in eval mode: images (B, 3, H, W) → logits (B, C)."""

    def logits(self, network: str, **images: Tensor) -> dict[str, Tensor]:
        """A network's logits (B, C) of each source's images (B, 3, H, W), from one pass over all of them.

        One pass, so that BatchNorm's statistics are those of the whole batch; dropout and stochastic depth act on the
        sources that ``train.noise`` says.
        """
        counts = {source: len(batch) for source, batch in images.items()}
        with self.noise(network, counts):
            logits = getattr(self, network)(torch.cat([*images.values()]))
        return dict(zip(counts, logits.split([*counts.values()]), strict=True))

    def noise(self, network: str, counts: dict[str, int]) -> AbstractContextManager[object]:
        """While it lasts, a network sees ``counts`` images of each source, in that order, each with its own noises."""
        return self.noised_rows[network](counts) if network in self.noised_rows else nullcontext()

    def student_logits(self, **images: Tensor) -> dict[str, Tensor]:
        """The student's ``logits``."""
        return self.logits("student", **images)

    def loss(self, batch: Batch, step: int) -> dict[str, Tensor]:
        """The scalar ``loss`` to descend, and its components, to be logged."""
        raise NotImplementedError

    def update(self, batch: Batch, step: int) -> dict[str, Tensor]:
        """One training step; returns the scalars to log, detached."""
        with self.autocast():
            losses = self.loss(batch, step)
        self.minimizers["student"].minimize(losses["loss"])
        return {name: value.detach() for name, value in losses.items()}

    def trained_networks(self) -> dict[str, nn.Module]:
        """The networks that get an optimizer, by name."""
        return {"student": self.student}

    def first_step(self, network: str) -> int:
        """The step at which a network starts to be trained; its learning rate's schedule begins there."""
        return 0

    def validated_networks(self) -> dict[str, nn.Module]:
        """Classifiers beside the student whose validation accuracy is logged."""
        return {}


def find_algorithm(name: str, parameters: dict[str, Any]) -> tuple[type[Algorithm], Section]:
    """An algorithm's class, found by its module's name, and its parameters, checked by its ``Config``.

    Raises UserError if there is no such module in this folder, if it holds no algorithm, or for wrong parameters.
    """
    if importlib.util.find_spec(f"selftrain.algorithms.{name}") is None:
        known = sorted({path.stem for path in Path(__file__).parent.glob("*.py")} - SHARED)
        raise UserError(f"train.algorithm.name: there is no algorithm '{name}'; {did_you_mean(name, known)}")
    module = importlib.import_module(f"selftrain.algorithms.{name}")
    classes = [
        value
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, Algorithm) and value.__module__ == module.__name__
    ]
    if module.__name__ == __name__ or len(classes) != 1:
        raise UserError(f"train.algorithm.name: '{name}' is not an algorithm, though there is such a file")
    return classes[0], parse_section(parameters, classes[0].Config, f"train.algorithm ({name})")
