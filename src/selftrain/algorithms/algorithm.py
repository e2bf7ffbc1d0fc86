"""The contract between an algorithm and the training loop."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, ClassVar, Protocol

from torch import Tensor, nn

from selftrain.config import Section

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
