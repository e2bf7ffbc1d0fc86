"""The contract between an algorithm and the training loop."""

import importlib
import importlib.util
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor, nn

from selftrain.config import Section, did_you_mean, parse_section
from selftrain.errors import UserError

Batch = dict[str, dict[str, Tensor]]
"""``batch["labeled" | "unlabeled"][view]``: images (B, 3, H, W), labels (B,), log_probs (B, C)."""


class Minimizer(Protocol):
    """Takes one optimizer step down a loss; made by the loop, one for each trained network."""

    def minimize(self, loss: Tensor, step: int) -> None:
        """Backward, average over processes, clip, set the step's learning rate, step."""


class Algorithm(nn.Module):
    """Owns its networks and says what a step is. Only ``student`` is evaluated, averaged and exported.

    A subclass sets ``Config`` and ``views`` and writes ``loss``; one with several trained networks also
    writes ``trained_networks`` and ``update``.
    """

    Config: ClassVar[type[Section]] = Section
    """The algorithm's own parameters: what ``train.algorithm`` holds beside the name."""

    views: ClassVar[dict[str, tuple[str, ...]]] = {"labeled": ("image", "label")}
    """What the batch has to hold, by source. Views: see ``training.views``; and ``label``, ``log_probs``."""

    def __init__(self, student: nn.Module, config: Any) -> None:
        super().__init__()
        self.student = student
        self.config = config
        self.minimizers: dict[str, Minimizer] = {}
        self.autocast: Callable[[], AbstractContextManager[object]] = nullcontext
        self.noised_rows: Callable[[dict[str, int]], AbstractContextManager[object]] = nullcontext

    def student_logits(self, **images: Tensor) -> dict[str, Tensor]:
        """The student's logits (B, C) of each source's images (B, 3, H, W), from one pass over all of them.

        One pass, so that BatchNorm's statistics are those of the whole batch; dropout and stochastic depth act on the
        sources that ``train.noise`` says.
        """
        counts = {source: len(batch) for source, batch in images.items()}
        with self.noised_rows(counts):
            logits = self.student(torch.cat([*images.values()]))
        return dict(zip(counts, logits.split([*counts.values()]), strict=True))

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """The scalar ``loss`` to descend, and its components, to be logged."""
        raise NotImplementedError

    def update(self, batch: Batch, step: int) -> dict[str, Tensor]:
        """One training step; returns the scalars to log, detached."""
        with self.autocast():
            losses = self.loss(batch)
        self.minimizers["student"].minimize(losses["loss"], step)
        return {name: value.detach() for name, value in losses.items()}

    def trained_networks(self) -> dict[str, nn.Module]:
        """The networks that get an optimizer, by name."""
        return {"student": self.student}


def find_algorithm(name: str, parameters: dict[str, Any]) -> tuple[type[Algorithm], Section]:
    """An algorithm's class, found by its module's name, and its parameters, checked by its ``Config``.

    Raises UserError if there is no such module in this folder, if it holds no algorithm, or for wrong parameters.
    """
    if importlib.util.find_spec(f"selftrain.algorithms.{name}") is None:
        known = sorted({path.stem for path in Path(__file__).parent.glob("*.py")} - {"__init__", "algorithm", "losses"})
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
