"""The contract between an algorithm and the training loop."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor, nn

from selftrain.learning.closed_form import FittedHead, FittedTo
from selftrain.learning.runtime import Gradient, Runtime
from selftrain.plumbing.by_name import find_class
from selftrain.plumbing.sections import Section, parse_section

Batch = dict[str, dict[str, Tensor]]
"""``batch["labeled" | "unlabeled"][view]``: images (B, 3, H, W), labels, weights, uniforms (B,), log_probs (B, C)."""


def images_in(batch: Batch) -> int:
    """How many images a batch has, of all sources."""
    return sum(len(next(iter(views.values()))) for views in batch.values())


def in_parts(batch: Batch, count: int) -> list[Batch]:
    """A batch cut into ``count`` batches with as many images of each source; all its tensors are a row an image."""
    cut = {source: {name: value.chunk(count) for name, value in views.items()} for source, views in batch.items()}
    return [
        {source: {name: parts[number] for name, parts in views.items()} for source, views in cut.items()}
        for number in range(count)
    ]


Views = dict[str, tuple[str, ...]]
"""What a batch has to hold, by source: see ``images.views``; ``label``, ``log_probs``; ``weight``, what an
unlabeled image weighs in the loss; ``uniform``, a number from 0 to
1 for each image, for what an algorithm draws."""


@dataclass(frozen=True)
class Needs:
    """What an algorithm has to be given."""

    views: Views
    networks: tuple[str, ...] = ()
    """Networks beside the student, which ``train.networks`` may set up by these names."""
    average: bool = False
    """Whether it uses the moving average of the student's weights, and ``train.ema_decay`` must be set."""
    teacher: bool = False
    """Whether it runs the round's teacher itself, instead of reading its table."""
    layers: tuple[str, ...] = ()
    """Of ``networks``, those that the algorithm makes itself: they have an optimizer, and no timm model."""
    whole_batch: bool = False
    """Whether its loss is more than a mean over images, so that it is not the mean of the losses of a batch's parts."""
    second_derivatives: bool = False
    """Whether its step is differentiated itself."""

    def reads_table(self, source: str) -> bool:
        """Whether it reads the teacher's prediction of ``labeled`` or of ``unlabeled`` images from its table."""
        return "log_probs" in self.views.get(source, ())


class Teacher(Protocol):
    """The round's teacher: in eval mode and without gradients, whatever is done to the algorithm.

    It is no part of the algorithm's state: it is loaded from its own folder.
    """

    def log_probs(self, images: Tensor) -> Tensor:
        """Images as the student gets them, (B, 3, H, W) → log-probabilities (B, C)."""

    def features(self, images: Tensor, count: int) -> list[Tensor]:
        """The last ``count`` feature maps (B, C', H', W') of such images, from the shallow to the deep."""

    def feature_channels(self, count: int) -> list[int]:
        """Channels of these maps."""


class Networks(Protocol):
    """What an algorithm gets its networks from, beside the student; made by the training."""

    def new(self, name: str) -> nn.Module:
        """A network by its name among those needed, as ``train.networks`` describes it."""

    def teacher(self) -> Teacher:
        """The round's teacher."""

    def feature_channels(self, network: nn.Module, count: int) -> list[int]:
        """Channels of a network's last ``count`` feature maps."""


@contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """While it lasts, the network is in eval mode; afterwards every part of it is as it was."""
    modes = [(part, part.training) for part in network.modules()]
    network.eval()
    try:
        yield
    finally:
        for part, mode in modes:
            part.training = mode


class Algorithm(nn.Module):
    """Owns its networks and says what a step is. Only ``student`` is evaluated, averaged and exported.

    A subclass sets ``Config`` and ``views`` and writes ``loss``; one with several trained networks also writes
    ``trained_networks``, ``learning`` if they take turns, and ``update`` if they do not descend one loss together.
    """

    Config: ClassVar[type[Section]] = Section
    """The algorithm's own parameters: what ``train.algorithm`` holds beside the name."""

    views: ClassVar[Views] = {"labeled": ("image", "label")}
    networks: ClassVar[tuple[str, ...]] = ()
    shrinks: ClassVar[bool] = False
    """Whether it is meant for students smaller than their teacher, so that nobody is warned of one."""
    closed_form: ClassVar[bool] = False
    """Whether it takes no steps: it writes ``fit`` instead of ``loss``, see ``linear_probe.py``."""

    @classmethod
    def needs(cls, config: Any) -> Needs:
        """What it needs with these parameters."""
        return Needs(cls.views, cls.networks)

    def __init__(self, student: nn.Module, config: Any, networks: Networks) -> None:
        super().__init__()
        self.student = student
        self.config = config

    @classmethod
    def check(cls, config: Any, total_steps: int) -> None:
        """Raises UserError, naming the parameter, for a training of so many steps that makes no sense with its config.

        What ``needs`` says is checked for all algorithms alike.
        """

    @classmethod
    def descends_one_loss(cls) -> bool:
        """Whether a step is one gradient of ``loss``: only such a step's batch can be cut in parts."""
        return cls.update is Algorithm.update

    @classmethod
    def fit(cls, config: Any, given: FittedTo, seed: int) -> FittedHead:
        """The student's classifier, where ``closed_form``."""
        raise NotImplementedError

    def loss(self, batch: Batch, step: int, runtime: Runtime) -> dict[str, Tensor]:
        """The scalar ``loss`` to descend, and its components, to be logged."""
        raise NotImplementedError

    def update(self, batch: Batch, step: int, runtime: Runtime) -> dict[str, Tensor]:
        """One training step of every trained network; returns the scalars to log, detached.

        The loss is the mean over the batch's parts, where ``train.grad_accum_steps`` cuts it.
        """
        *first, last = in_parts(batch, runtime.grad_accum_steps)
        found: list[dict[str, Tensor]] = []
        so_far: Gradient | None = None
        learning = self.learning(step)
        for part in first:
            so_far = runtime.accumulate(self._share_of_loss(part, step, runtime, found), learning, so_far)
        runtime.descend(self._share_of_loss(last, step, runtime, found), learning, so_far)
        return {name: torch.stack([losses[name] for losses in found]).mean(dim=0) for name in found[0]}

    def _share_of_loss(self, part: Batch, step: int, runtime: Runtime, found: list[dict[str, Tensor]]) -> Tensor:
        """A part's share of the step's loss; all its losses, detached, are added to ``found``."""
        with runtime.autocast():
            losses = self.loss(part, step, runtime)
        found.append({name: value.detach() for name, value in losses.items()})
        return losses["loss"] / runtime.grad_accum_steps

    def trained_networks(self) -> dict[str, nn.Module]:
        """The networks that get an optimizer, by name."""
        return {} if self.closed_form else {"student": self.student}

    def learning(self, step: int) -> tuple[str, ...]:
        """Those of them that descend this step's loss."""
        return tuple(self.trained_networks())

    def first_step(self, network: str) -> int:
        """The step at which a network starts to be trained; its learning rate's schedule begins there."""
        return 0

    def validated_networks(self) -> dict[str, nn.Module]:
        """Classifiers beside the student whose validation accuracy is logged."""
        return {}


def find_algorithm(name: str, parameters: dict[str, Any]) -> tuple[type[Algorithm], Section]:
    """An algorithm's class, found by its module's name, and its parameters, checked by its ``Config``.

    Raises UserError if there is no such module in ``algorithms``, if it holds no algorithm, or for wrong parameters.
    """
    found = find_class("algorithms", name, Algorithm, "train.algorithm.name", "algorithm ")
    return found, parse_section(parameters, found.Config, f"train.algorithm ({name})")
