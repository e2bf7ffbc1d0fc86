import pytest
import torch

from selftrain.algorithms.algorithm import evaluating
from selftrain.networks.freezing import freeze_shallow, train_mode
from selftrain.networks.models import create_model
from selftrain.plumbing.errors import UserError


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
