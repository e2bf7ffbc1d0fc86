import copy
import math
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from selftrain.learning.runtime import plain_gradient
from selftrain.params.train import TrainConfig
from selftrain.plumbing.errors import UserError
from selftrain.training.checkpoint import load_checkpoint, save_checkpoint
from selftrain.training.optimization import Descent, create_optimizer
from selftrain.training.sharding import load_whole, load_whole_optimizer
from tests.training.conftest import TINY


def rates(total: int, steps_per_epoch: float = 10, **changes: object) -> list[float]:
    config = TrainConfig.model_validate(TINY | {"learning_rate": 0.1} | changes)
    network = torch.nn.Linear(2, 1)
    descent = Descent(network, config, total, steps_per_epoch)
    found = []
    for step in range(total):
        descent.begin(step)
        descent.descend(plain_gradient(network(torch.ones(1, 2)).sum(), descent.parameters))
        found.append(descent.learning_rate)
    return found


def test_cosine_after_a_linear_warmup() -> None:
    found = rates(100, warmup=0.2)
    first = 0.1 / 21
    for step in range(20):
        assert found[step] == pytest.approx(first + step * (0.1 - first) / 20)
    for step in range(20, 100):
        assert found[step] == pytest.approx(0.05 * (1 + math.cos(math.pi * step / 100)))


def test_constant() -> None:
    assert rates(10, schedule="constant", warmup=0) == pytest.approx([0.1] * 10)


def test_the_rate_is_a_function_of_the_step_alone() -> None:
    config = TrainConfig.model_validate(TINY)
    network = torch.nn.Linear(2, 1)
    late = Descent(network, config, 50, 10)
    late.begin(37)
    assert late.learning_rate == pytest.approx(rates(50, learning_rate=TINY["learning_rate"])[37])


def test_gradients_are_clipped() -> None:
    config = TrainConfig.model_validate(TINY | {"optimizer": "sgd", "clip_grad": 0.5, "warmup": 0, "weight_decay": 0})
    network = torch.nn.Linear(2, 1, bias=False)
    before = network.weight.detach().clone()
    descent = Descent(network, config, 10, 10)
    descent.descend(plain_gradient(1000 * network(torch.ones(1, 2)).sum(), descent.parameters))
    # The first step of SGD with momentum is the rate times the clipped gradient; Nesterov adds 0.9 of it again.
    assert (network.weight - before).norm().item() == pytest.approx(0.5 * 1.9 * TINY["learning_rate"], rel=1e-4)


def test_unknown_optimizers_are_named() -> None:
    with pytest.raises(UserError, match="timm knows no optimizer 'adamz'"):
        Descent(torch.nn.Linear(1, 1), TrainConfig.model_validate(TINY | {"optimizer": "adamz"}), 1, 1)


@pytest.mark.parametrize(
    ("name", "made"),
    [("sgd", "SGD"), ("AdamW", "AdamW"), ("rmsproptf", "RMSpropTF"), ("lookahead_adamw", "Lookahead")],
)
def test_timms_optimizers_by_name(name: str, made: str) -> None:
    descent = Descent(torch.nn.Linear(1, 1), TrainConfig.model_validate(TINY | {"optimizer": name}), 1, 1)
    assert type(descent.optimizer).__name__ == made


@pytest.mark.parametrize("decay_epochs", [2.4, 4.8])
def test_the_papers_decay(decay_epochs: float) -> None:
    # Noisy Student, Section 3.1: 0.97 every 2.4 epochs of a 350-epoch schedule, 4.8 of a 700-epoch one.
    per_epoch = 5
    found = rates(
        60, per_epoch, schedule="step", decay_epochs=decay_epochs, warmup=0, batch_size=1024, learning_rate_batch=2048
    )
    for step, rate in enumerate(found):
        assert rate == pytest.approx(0.1 / 2 * 0.97 ** math.floor(step / per_epoch / decay_epochs + 1e-9))
    assert len(set(found)) == math.ceil(60 / per_epoch / decay_epochs)


def test_the_replications_decay() -> None:
    found = rates(100, 1, schedule="step", decay_rate=0.1, decay_epochs=30, warmup=0)
    assert found == pytest.approx([0.1] * 30 + [0.01] * 30 + [0.001] * 30 + [0.0001] * 10)


def test_a_later_phase_can_go_on_with_the_schedule() -> None:
    whole = rates(100, 2, schedule="step", decay_rate=0.1, decay_epochs=15, warmup=0)
    assert rates(40, 2, schedule="step", decay_rate=0.1, decay_epochs=15, warmup=0, schedule_from=30) == whole[60:]


def test_an_optimizers_own_arguments() -> None:
    config = TrainConfig.model_validate(TINY | {"optimizer": "rmsproptf", "optimizer_options": {"eps": 0.001}})
    assert Descent(torch.nn.Linear(1, 1), config, 1, 1).optimizer.defaults["eps"] == 0.001
    config = TrainConfig.model_validate(TINY | {"optimizer": "adamw", "optimizer_options": {"epsilon": 1}})
    with pytest.raises(UserError, match="optimizer_options: not for 'adamw'.*epsilon"):
        Descent(torch.nn.Linear(1, 1), config, 1, 1)


def test_a_layers_rate_is_that_of_the_layer_above_times_the_decay() -> None:
    from timm.models._manipulate import group_parameters

    from selftrain.networks.models import create_model

    network = create_model("test_resnet", 3, 32)
    config = TrainConfig.model_validate(
        TINY | {"learning_rate": 0.1, "warmup": 0, "layer_decay": 0.5, "optimizer": "sgd"}
    )
    descent = Descent(network, config, 100, 10)
    for step in (0, 50):
        descent.begin(step)
        highest = 0.05 * (1 + math.cos(math.pi * step / 100))
        assert descent.learning_rate == pytest.approx(highest)
        rate_of = {
            id(parameter): group["lr"] for group in descent.optimizer.param_groups for parameter in group["params"]
        }
        named = dict(network.named_parameters())
        layers = group_parameters(network, network.group_matcher(coarse=False))
        deepest = max(layers)
        for layer, names in layers.items():
            for name in names:
                assert rate_of[id(named[name])] == pytest.approx(highest * 0.5 ** (deepest - layer)), (layer, name)
    with pytest.raises(UserError, match="train.layer_decay: a Linear has no layers"):
        Descent(torch.nn.Linear(2, 1), config, 10, 10)


@pytest.mark.parametrize("name", ["adamw", "lamb", "clamb", "lion", "muon", "adafactorbv", "adopt", "nadamw"])
def test_a_resumed_optimizer_takes_the_same_steps(name: str, tmp_path: Path) -> None:
    """Bit by bit, of weights in channels-last memory, through a checkpoint."""
    rng = torch.Generator().manual_seed(0)
    config = TrainConfig.model_validate(TINY | {"algorithm": {"name": "supervised"}, "optimizer": name})
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 16, 3), nn.Flatten(), nn.Linear(16, 4))
    network.to(memory_format=torch.channels_last)
    slopes = [[torch.randn(p.shape, generator=rng) for p in network.parameters()] for _ in range(6)]

    def go_on(made: nn.Module, optimizer: torch.optim.Optimizer, steps: list[list[Tensor]]) -> None:
        for step in steps:
            for parameter, slope in zip(made.parameters(), step, strict=True):
                parameter.grad = torch.empty_like(parameter).copy_(slope)
            optimizer.step()

    first = create_optimizer(network, config)
    go_on(network, first, slopes[:3])
    save_checkpoint(tmp_path, 3, {"network": network.state_dict(), "optimizer": first.state_dict()})
    go_on(network, first, slopes[3:])
    again = copy.deepcopy(network)
    second = create_optimizer(again, config)
    state = load_checkpoint(tmp_path)
    assert state is not None
    load_whole(again, state["network"])
    load_whole_optimizer(second, state["optimizer"])
    go_on(again, second, slopes[3:])
    for one, other in zip(network.parameters(), again.parameters(), strict=True):
        assert torch.equal(one, other)
