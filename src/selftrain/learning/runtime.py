"""What the loop gives an algorithm for its steps: optimizers, precision, noise, the moving average, other processes."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from itertools import islice
from typing import Protocol

import torch
from torch import Tensor, nn

Gradient = tuple[Tensor | None, ...]
"""One tensor for each trainable parameter of a network, in their order; None where the loss does not touch it."""
NoisedRows = Callable[[dict[str, int]], AbstractContextManager[object]]


class LossGradient(Protocol):
    """A loss's gradient by parameters of several networks."""

    def __call__(
        self,
        loss: Tensor,
        parameters: Sequence[Tensor],
        so_far: Gradient | None = None,
        retain_graph: bool = False,
    ) -> Gradient:
        """``so_far`` is what this process has of earlier losses. It is added, before a mean over processes is taken.

        ``retain_graph`` leaves what the loss was computed of for another loss of the same forward pass.
        """


def plain_gradient(
    loss: Tensor, parameters: Sequence[Tensor], so_far: Gradient | None = None, retain_graph: bool = False
) -> Gradient:
    """A loss's gradient in one process, and ``so_far`` added; None where no loss touches a parameter."""
    found = torch.autograd.grad(loss, list(parameters), allow_unused=True, retain_graph=retain_graph)
    return found if so_far is None else added(so_far, found)


def added(one: Gradient, other: Gradient) -> Gradient:
    """The sum of two gradients by the same parameters."""
    return tuple(_sum(*slopes) for slopes in zip(one, other, strict=True))


def _sum(one: Tensor | None, other: Tensor | None) -> Tensor | None:
    if one is None or other is None:
        return other if one is None else one
    return one + other


def copied(gradient: Gradient) -> Gradient:
    """A gradient for ``Minimizer.descend`` to overwrite."""
    return tuple(None if slope is None else slope.detach().clone() for slope in gradient)


class Minimizer(Protocol):
    """Takes optimizer steps for one trained network; made by the loop."""

    @property
    def parameters(self) -> Sequence[Tensor]:
        """What is trained of the network."""

    @property
    def learning_rate(self) -> float:
        """Of the step under way."""

    def descend(self, gradient: Gradient) -> None:
        """Clip and step the optimizer. The gradient's tensors may be overwritten."""

    def stepped(self, gradient: Gradient) -> Sequence[Tensor]:
        """Where ``descend`` would lead: the parameters after it. Nothing changes."""

    def at(self, weights: Sequence[Tensor]) -> AbstractContextManager[None]:
        """While it lasts, ``parameters`` have these values; afterwards they, and BatchNorm's statistics, are as before.

        Gradients of what is computed meanwhile have to be taken meanwhile.
        """


@dataclass
class Runtime:
    """One training as its algorithm sees it. The defaults are those of a step without a loop around it."""

    minimizers: Mapping[str, Minimizer] = field(default_factory=dict)
    """By the names of the trained networks."""
    gradient: LossGradient = plain_gradient
    """Averaged over processes."""
    own_gradient: LossGradient = plain_gradient
    """This process's alone; where processes share out the weights, averaged all the same."""
    grad_accum_steps: int = 1
    """How many parts of a batch a step's gradient is added up from."""
    autocast: Callable[[], AbstractContextManager[object]] = nullcontext
    """The precision of forward passes."""
    noised_rows: Mapping[nn.Module, NoisedRows] = field(default_factory=dict)
    """The noise inside each network."""
    averaged_student: Callable[[Tensor], Tensor] | None = None
    """The moving average of the student's weights, in eval mode: images (B, 3, H, W) → logits (B, C)."""
    means: Callable[[Sequence[Tensor]], list[Tensor]] = lambda values: [value.detach() for value in values]
    """Tensors' means over processes, without a gradient."""
    share_buffers: Callable[[nn.Module], None] = lambda network: None
    """Gives every process the first one's BatchNorm statistics: before a trained network is used in eval mode."""

    def logits(self, network: nn.Module, **images: Tensor) -> dict[str, Tensor]:
        """A network's logits (B, C) of each source's images (B, 3, H, W), from one pass over all of them.

        One pass, so that BatchNorm's statistics are those of the whole batch; dropout and stochastic depth act on the
        sources that ``train.noise`` says.
        """
        counts = {source: len(batch) for source, batch in images.items()}
        with self.noise(network, counts):
            logits = network(torch.cat([*images.values()]))
        return dict(zip(counts, logits.split([*counts.values()]), strict=True))

    def noise(self, network: nn.Module, counts: dict[str, int]) -> AbstractContextManager[object]:
        """While it lasts, a network sees ``counts`` images of each source, in that order, each with its own noises."""
        return self.noised_rows[network](counts) if network in self.noised_rows else nullcontext()

    def average(self, images: Tensor) -> Tensor:
        """The moving average's logits (B, C) of images (B, 3, H, W), for algorithms that say so in ``needs``."""
        assert self.averaged_student is not None
        return self.averaged_student(images)

    def accumulate(self, loss: Tensor, networks: Iterable[str], so_far: Gradient | None) -> Gradient:
        """``own_gradient`` by all parameters of these networks, and ``so_far`` added."""
        return self.own_gradient(loss, self._parameters(networks), so_far)

    def descend(self, loss: Tensor, networks: Iterable[str], so_far: Gradient | None = None) -> None:
        """A step of these networks down one loss, and those that ``so_far`` is of; no other network is touched."""
        networks = list(networks)
        slopes = iter(self.gradient(loss, self._parameters(networks), so_far))
        for name in networks:
            minimizer = self.minimizers[name]
            minimizer.descend(tuple(islice(slopes, len(minimizer.parameters))))

    def _parameters(self, networks: Iterable[str]) -> list[Tensor]:
        return [parameter for name in networks for parameter in self.minimizers[name].parameters]
