"""The contract between an algorithm and the training loop."""

import importlib
import importlib.util
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from itertools import islice
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

Views = dict[str, tuple[str, ...]]
"""What a batch has to hold, by source: see ``training.views``; ``label``, ``log_probs``; ``lot``, a number from 0 to 1
for each image, for what an algorithm draws."""

SHARED = {"__init__", "algorithm", "feedback", "losses", "soft_targets"}
"""Files of this folder that are no algorithm."""


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

    def reads_table(self, source: str) -> bool:
        """Whether it reads the teacher's opinion of ``labeled`` or of ``unlabeled`` images from its table."""
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


class Minimizer(Protocol):
    """Takes optimizer steps for one trained network; made by the loop."""

    @property
    def parameters(self) -> Sequence[Tensor]:
        """What is trained of the network."""

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

    A subclass sets ``Config`` and ``views`` and writes ``loss``; one with several trained networks also writes
    ``trained_networks``, and ``update`` where they do not descend one loss together.
    """

    Config: ClassVar[type[Section]] = Section
    """The algorithm's own parameters: what ``train.algorithm`` holds beside the name."""

    views: ClassVar[Views] = {"labeled": ("image", "label")}
    networks: ClassVar[tuple[str, ...]] = ()
    shrinks: ClassVar[bool] = False
    """Whether a student that is smaller than its teacher is what it is for."""

    @classmethod
    def needs(cls, config: Any) -> Needs:
        """What it needs with these parameters."""
        return Needs(cls.views, cls.networks)

    def __init__(self, student: nn.Module, config: Any, networks: Networks) -> None:
        super().__init__()
        self.student = student
        self.config = config
        self.minimizers: dict[str, Minimizer] = {}
        self.autocast: Callable[[], AbstractContextManager[object]] = nullcontext
        self.noised_rows: dict[str, Callable[[dict[str, int]], AbstractContextManager[object]]] = {}
        self.average: Callable[[Tensor], Tensor] | None = None
        """The moving average of the student's weights, in eval mode: images (B, 3, H, W) → logits (B, C)."""
        self.share_buffers: Callable[[nn.Module], None] = lambda network: None
        """Gives every process the first one's BatchNorm statistics: before a trained network is used in eval mode."""

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
        """One training step of every trained network; returns the scalars to log, detached."""
        with self.autocast():
            losses = self.loss(batch, step)
        self.descend(losses["loss"], self.trained_networks())
        return {name: value.detach() for name, value in losses.items()}

    def descend(self, loss: Tensor, networks: Iterable[str]) -> None:
        """A step of these networks down one loss; no other is touched."""
        minimizers = [self.minimizers[name] for name in networks]
        parameters = [parameter for minimizer in minimizers for parameter in minimizer.parameters]
        slopes = iter(torch.autograd.grad(loss, parameters, allow_unused=True))
        for minimizer in minimizers:
            minimizer.descend(minimizer.averaged(tuple(islice(slopes, len(minimizer.parameters)))))

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
