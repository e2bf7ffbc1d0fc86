"""Optimizer, schedule, clipping and averaging: one step down a loss."""

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from timm.optim._optim_factory import create_optimizer_v2, list_optimizers
from timm.scheduler.scheduler import Scheduler
from timm.scheduler.scheduler_factory import create_scheduler_v2
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from selftrain.learning.runtime import Gradient, copied
from selftrain.networks.freezing import RestingLayers
from selftrain.networks.layers import layers_of
from selftrain.params.train import TrainConfig
from selftrain.plumbing.errors import UserError, one_line
from selftrain.plumbing.sections import did_you_mean

SECOND_DERIVATIVES = ("adahessian",)
"""Timm's optimizers that need more than a gradient."""


class Descent:
    """An optimizer and its schedule for one network; the ``Minimizer`` that algorithms call.

    The schedule begins at ``first_step`` of the training and ends with it.
    """

    def __init__(
        self,
        network: nn.Module,
        config: TrainConfig,
        total_steps: int,
        steps_per_epoch: float,
        first_step: int = 0,
        resting_stream: int = 0,
    ) -> None:
        self.network = network
        self.parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
        self.clip_grad, self.skips = config.clip_grad, config.skip_nonfinite > 0
        self.finite: list[Tensor] = []
        """Whether each gradient since the step began was finite; on the device."""
        self.step = 0
        freezing = config.noise.layer_freezing if layers_of(network) else 0
        self.resting_layers = RestingLayers(network, freezing, resting_stream) if freezing else None
        self.optimizer = create_optimizer(network, config)
        self.steps_before = round(config.schedule_from * steps_per_epoch) - first_step
        self.schedule = create_schedule(self.optimizer, config, total_steps + self.steps_before, steps_per_epoch)

    def descend(self, gradient: Gradient) -> None:
        """Clip and step the optimizer. The gradient's tensors may be overwritten.

        With ``train.skip_nonfinite`` no step is taken along a gradient that is not finite. Layers that rest
        (``noise.layer_freezing``) have none.
        """
        if self.resting_layers is not None:
            resting = self.resting_layers.resting(self.step)
            gradient = tuple(None if rests else tensor for rests, tensor in zip(resting, gradient, strict=True))
        for parameter, tensor in zip(self.parameters, gradient, strict=True):
            parameter.grad = tensor
        taken = [tensor for tensor in gradient if tensor is not None]
        # Without any it would be on the CPU.
        norm = get_total_norm(taken) if taken else torch.zeros((), device=self.parameters[0].device)
        self.finite.append((norm.full_tensor() if isinstance(norm, DTensor) else norm).isfinite())
        if self.clip_grad is not None:
            clip_grads_with_norm_(self.parameters, self.clip_grad, norm)
        if not self.skips or self.finite[-1]:
            self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    def stepped(self, gradient: Gradient) -> list[Tensor]:
        """Where ``descend`` would lead: the parameters after it. Nothing changes."""
        found = [parameter.detach().clone() for parameter in self.parameters]
        state, finite = copy.deepcopy(self.optimizer.state_dict()), list(self.finite)
        self.descend(copied(gradient))
        _exchange(self.parameters, found)
        self.optimizer.load_state_dict(state)
        self.finite = finite
        return found

    @contextmanager
    def at(self, weights: Sequence[Tensor]) -> Iterator[None]:
        """While it lasts, ``parameters`` have these values; afterwards they, and BatchNorm's statistics, are as before.

        Gradients of what is computed meanwhile have to be taken meanwhile.
        """
        statistics = [buffer.clone() for buffer in self.network.buffers()]
        _exchange(self.parameters, weights)
        try:
            yield
        finally:
            _exchange(self.parameters, weights)
            _exchange([*self.network.buffers()], statistics)

    def begin(self, step: int) -> None:
        """Begin a step of the training, counted from its start: set its rate."""
        self.step = step
        self.finite.clear()
        self.schedule.step_update(max(0, self.steps_before + step))

    @property
    def learning_rate(self) -> float:
        """The rate that was set last; of the classifier, where layers differ."""
        return max(float(group["lr"]) for group in self.optimizer.param_groups)


@torch.no_grad()
def _exchange(some: Sequence[Tensor], others: Sequence[Tensor]) -> None:
    """Exchange two lists' values, in place: one tensor at a time, so that no copy of a network is held."""
    for one, other in zip(some, others, strict=True):
        held = one.clone()
        one.copy_(other)
        other.copy_(held)


def check_optimizer_name(name: str) -> None:
    """Raises UserError for a name that timm does not know."""
    known = [str(optimizer) for optimizer in list_optimizers()]
    plain = name.lower().removeprefix("lookahead_")
    if plain in SECOND_DERIVATIVES:
        raise UserError(f"train.optimizer: '{name}' needs second derivatives, which no algorithm here gives it")
    if plain not in known:
        raise UserError(f"train.optimizer: timm knows no optimizer '{name}'; {did_you_mean(name, known)}")


def create_optimizer(network: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    """Timm's optimizer by name; no weight decay on biases and norms, nothing at all on what is frozen.

    Raises UserError for unknown names and arguments.
    """
    check_optimizer_name(config.optimizer)
    if config.layer_decay is not None and not layers_of(network):
        raise UserError(f"train.layer_decay: a {type(network).__name__} has no layers to tell apart; leave it out")
    try:
        return create_optimizer_v2(
            network,
            opt=config.optimizer,
            lr=config.scaled_learning_rate,
            weight_decay=config.weight_decay,
            layer_decay=config.layer_decay,
            **config.optimizer_options,
        )
    except (AssertionError, ImportError, RuntimeError) as error:
        raise UserError(f"train.optimizer: '{config.optimizer}' cannot be used here: {one_line(error)}") from None
    except (TypeError, ValueError) as error:
        if not config.optimizer_options:
            raise
        raise UserError(f"train.optimizer_options: not for '{config.optimizer}': {error}") from None


def create_schedule(
    optimizer: torch.optim.Optimizer, config: TrainConfig, total_steps: int, steps_per_epoch: float
) -> Scheduler:
    """A timm schedule that is a function of the step alone."""
    warmup_steps = round(config.warmup * total_steps)
    schedule, _ = create_scheduler_v2(
        optimizer,
        config.schedule,
        num_epochs=total_steps,
        decay_epochs=config.decay_epochs * steps_per_epoch,
        decay_rate=config.decay_rate,
        warmup_epochs=warmup_steps,
        warmup_lr=config.scaled_learning_rate / (warmup_steps + 1),
        step_on_epochs=False,
        updates_per_epoch=1,
    )
    assert isinstance(schedule, Scheduler)
    return schedule
