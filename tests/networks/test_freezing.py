import numpy as np
import pytest
import torch

from selftrain.learning.algorithm import evaluating
from selftrain.learning.runtime import plain_gradient
from selftrain.networks.freezing import RestingLayers, freeze_shallow, train_mode
from selftrain.networks.layers import layers_of
from selftrain.networks.models import create_model
from selftrain.params.train import TrainConfig
from selftrain.plumbing.errors import UserError
from selftrain.training.optimization import Descent
from tests.training.conftest import TINY


def trained(model: torch.nn.Module) -> list[str]:
    return [name for name, parameter in model.named_parameters() if parameter.requires_grad]


@pytest.mark.parametrize("name", ["test_resnet", "test_vit", "test_efficientnet"])
def test_layers_freeze_from_the_input(name: str) -> None:
    model = create_model(name, 3, 32)
    everything = trained(model)
    freeze_shallow(model, 0)
    assert trained(model) == everything
    freeze_shallow(model, 0.5)
    half = trained(model)
    assert 0 < len(half) < len(everything)
    assert everything[0] not in half
    freeze_shallow(model, 1)
    assert set(trained(model)) <= {
        name for name in everything if name.startswith(("fc.", "head.", "classifier.", "norm.", "fc_norm."))
    }
    assert trained(model)


def test_frozen_layers_stay_as_they_are_through_training_and_validation() -> None:
    model = create_model("test_resnet", 3, 32)
    freeze_shallow(model, 1)
    train_mode(model)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    for _ in range(3):
        with evaluating(model):
            assert not any(part.training for part in model.modules())
        model(torch.randn(4, 3, 32, 32)).square().sum().backward()
        optimizer.step()
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {"fc.weight", "fc.bias"}


def test_other_networks_have_no_layers_to_freeze() -> None:
    with pytest.raises(UserError, match="a Linear has no layers to freeze"):
        freeze_shallow(torch.nn.Linear(2, 2), 0.5)
    freeze_shallow(torch.nn.Linear(2, 2), 0.0)


def test_layers_rest_as_often_as_asked_and_whole() -> None:
    model = create_model("test_resnet", 3, 32)
    layers = layers_of(model)
    drawn = np.array([RestingLayers(model, 0.3, 7).resting(step) for step in range(2000)])  # (steps, P)
    assert drawn.mean() == pytest.approx(0.3, abs=0.02)
    place = {name: number for number, (name, _) in enumerate(model.named_parameters())}
    for layer in layers:
        columns = drawn[:, [place[name] for name in layer]]
        assert (columns == columns[:, :1]).all(), "a layer rests as a whole"
    assert (drawn[0] == RestingLayers(model, 0.3, 7).resting(0)).all()
    assert not (drawn == np.array([RestingLayers(model, 0.3, 8).resting(step) for step in range(2000)])).all()


def test_a_resting_layer_stays_as_it_is_in_its_step() -> None:
    model = create_model("test_resnet", 3, 32)
    config = TrainConfig.model_validate(TINY | {"noise": {"layer_freezing": 0.5}, "steps": 20, "warmup": 0})
    descent = Descent(model, config, 20, 1.0, resting_stream=3)
    for step in range(4):
        before = [parameter.detach().clone() for parameter in model.parameters()]
        descent.begin(step)
        descent.descend(plain_gradient(model(torch.randn(4, 3, 32, 32)).square().mean(), descent.parameters))
        moved = [not torch.equal(*pair) for pair in zip(before, model.parameters(), strict=True)]
        rests = RestingLayers(model, 0.5, 3).resting(step)
        assert 0 < rests.sum() < len(rests)
        assert not any(moves for moves, resting in zip(moved, rests, strict=True) if resting)
        trained_now = [moves for moves, resting in zip(moved, rests, strict=True) if not resting]
        assert sum(trained_now) > 0.5 * len(trained_now), "some behind a zero of the start have no gradient yet"


def test_a_step_in_which_everything_rests_is_a_step() -> None:
    model = create_model("test_resnet", 3, 32)
    config = TrainConfig.model_validate(TINY | {"noise": {"layer_freezing": 0.999}, "steps": 5, "clip_grad": 1.0})
    descent = Descent(model, config, 5, 1.0, resting_stream=1)
    before = [parameter.detach().clone() for parameter in model.parameters()]
    descent.begin(1)
    descent.descend(plain_gradient(model(torch.randn(4, 3, 32, 32)).square().mean(), descent.parameters))
    assert RestingLayers(model, 0.999, 1).resting(1).all()
    assert all(torch.equal(*pair) for pair in zip(before, model.parameters(), strict=True))
    assert torch.stack(descent.finite).all()
