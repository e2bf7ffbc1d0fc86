"""Optimizer, schedule, clipping and averaging: one step down a loss."""

import torch
from timm.optim._optim_factory import create_optimizer_v2, list_optimizers
from timm.scheduler.scheduler import Scheduler
from timm.scheduler.scheduler_factory import create_scheduler_v2
from torch import Tensor, nn

from selftrain.config import did_you_mean
from selftrain.errors import UserError
from selftrain.training.config import TrainConfig
from selftrain.training.distributed import average


class Descent:
    """An optimizer and its schedule for one network; the ``Minimizer`` that algorithms call."""

    def __init__(self, network: nn.Module, config: TrainConfig, total_steps: int, steps_per_epoch: float) -> None:
        self.network = network
        self.clip_grad = config.clip_grad
        self.optimizer = create_optimizer(network, config)
        self.steps_before = round(config.schedule_from * steps_per_epoch)
        self.schedule = create_schedule(self.optimizer, config, total_steps + self.steps_before, steps_per_epoch)

    def minimize(self, loss: Tensor, step: int) -> None:
        """Backward, average over processes, clip, set the step's learning rate, step."""
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        average(parameter.grad for parameter in self.network.parameters() if parameter.grad is not None)
        if self.clip_grad is not None:
            torch.nn.utils.clip_grad_norm_(self.network.parameters(), self.clip_grad)
        self.schedule.step_update(self.steps_before + step)
        self.optimizer.step()

    @property
    def learning_rate(self) -> float:
        """The rate of the last step."""
        return float(self.optimizer.param_groups[-1]["lr"])


def check_optimizer_name(name: str) -> None:
    """Raises UserError for a name that timm does not know."""
    known = [str(optimizer) for optimizer in list_optimizers()]
    if name.lower().removeprefix("lookahead_") not in known:
        raise UserError(f"train.optimizer: timm knows no optimizer '{name}'; {did_you_mean(name, known)}")


def create_optimizer(network: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    """Timm's optimizer by name; no weight decay on biases and norms, nothing at all on what is frozen.

    Raises UserError for unknown names and arguments.
    """
    check_optimizer_name(config.optimizer)
    try:
        return create_optimizer_v2(
            network,
            opt=config.optimizer,
            lr=config.scaled_learning_rate,
            weight_decay=config.weight_decay,
            **config.optimizer_options,
        )
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
