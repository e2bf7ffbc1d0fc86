"""The decay of the weights' average against the formulas of those who use it."""

import pytest
import torch
from torch import nn

from selftrain.params.train import TrainConfig
from selftrain.training.weights_average import WeightsAverage, decay_of_step


def config(**changes: object) -> TrainConfig:
    given = {
        "algorithm": {"name": "supervised"}, "model": "test_resnet", "image_size": 32, "batch_size": 2, "steps": 9,
        "learning_rate": 0.1, "ema_decay": 0.999,
    }  # fmt: skip
    return TrainConfig.model_validate(given | changes)


@pytest.mark.parametrize(
    ("warmup", "step", "expected"),
    [
        ("tensorflow", 1, 2 / 11),
        ("tensorflow", 100, 101 / 110),
        ("tensorflow", 8_989, 8_990 / 8_999),
        ("tensorflow", 9_000, 0.999),
        ("tensorflow", 214_000, 0.999),
        ("mean_teacher", 1, 0.5),
        ("mean_teacher", 3, 0.75),
        ("mean_teacher", 999, 0.999),
        ("mean_teacher", 5_000, 0.999),
        ("none", 1, 0.999),
    ],
)
def test_the_decay_of_a_step(warmup: str, step: int, expected: float) -> None:
    assert decay_of_step(step, config(ema_warmup=warmup)) == pytest.approx(expected, rel=1e-12)


def test_the_papers_decay_is_reached() -> None:
    assert decay_of_step(214_000, config(ema_decay=0.9999)) == 0.9999
    assert decay_of_step(400, config(ema_decay=0.99, ema_warmup="mean_teacher")) == 0.99


def test_mean_teacher_has_two_decays() -> None:
    both = config(ema_first={"decay": 0.99, "steps": 4000}, ema_warmup="mean_teacher")
    assert [decay_of_step(step, both) for step in (1, 99, 4000, 4001)] == [0.5, 0.99, 0.99, 0.999]


def test_the_average_follows_by_the_decay() -> None:
    network = nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        network.weight.fill_(0.0)
    average = WeightsAverage(network, config(ema_warmup="mean_teacher"))
    expected = 0.0
    for step, weight in enumerate((1.0, 4.0, -2.0), start=1):
        with torch.no_grad():
            network.weight.fill_(weight)
        average.update(network, step)
        decay = min(0.999, 1 - 1 / (step + 1))
        expected = decay * expected + (1 - decay) * weight
        assert average.module.weight.item() == pytest.approx(expected, rel=1e-6)
    assert expected == pytest.approx((0 + 1 + 4 - 2) / 4), "the plain mean, that of the start included"
