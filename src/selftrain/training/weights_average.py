"""The moving average of a network's weights, and how fast it follows."""

from timm.utils.model_ema import ModelEmaV3
from torch import Tensor, nn

from selftrain.learning.gradients import own_share
from selftrain.params.train import TrainConfig


def decay_of_step(step: int, config: TrainConfig) -> float:
    """The average's decay in the ``step``-th step, counted from 1.

    ``ema_warmup`` bounds it: (1 + s) / (10 + s) as TensorFlow's ExponentialMovingAverage, 1 − 1 / (s + 1) as Mean
    Teacher's code (Tarvainen and Valpola 2017), under which the average is the plain mean at first.
    """
    decay = config.ema_decay
    assert decay is not None
    if config.ema_first is not None and step <= config.ema_first.steps:
        decay = config.ema_first.decay
    if config.ema_warmup == "tensorflow":
        return min(decay, (1 + step) / (10 + step))
    if config.ema_warmup == "mean_teacher":
        return min(decay, 1 - 1 / (step + 1))
    return decay


class WeightsAverage(ModelEmaV3):
    """timm's average with our decay; ``update(model, step)`` after the ``step``-th step."""

    def __init__(self, model: nn.Module, config: TrainConfig) -> None:
        super().__init__(model)
        self.config = config

    def _foreach_lerp_(self, ema_values: list[Tensor], model_values: list[Tensor], weight: float) -> None:
        """Of this process's shares, where the weights are shared out."""
        super()._foreach_lerp_([*map(own_share, ema_values)], [*map(own_share, model_values)], weight)

    def get_decay(self, step: int | None = None) -> float:
        """See ``decay_of_step``."""
        assert step is not None
        return decay_of_step(step, self.config)
