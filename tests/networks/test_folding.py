import pytest
import timm
import torch
from torch import nn

from selftrain.networks.folding import folded
from selftrain.networks.models import create_model


def with_statistics(model: nn.Module) -> nn.Module:
    """Statistics and scales that a training could have left."""
    torch.manual_seed(0)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, -1.5, 1.5)
            nn.init.normal_(module.bias)
            nn.init.normal_(module.running_mean)
            nn.init.uniform_(module.running_var, 0.3, 3)
    return model.eval().to(memory_format=torch.channels_last)


@pytest.mark.parametrize(
    "name",
    [
        "test_resnet",
        "test_efficientnet",
        "resnet18",
        "mobilenetv3_small_050",
        "regnetx_002",
        "densenet121",
        "wide_resnet28_2",
    ],
)
def test_a_folded_network_is_the_same(name: str) -> None:
    model = with_statistics(create_model(name, 5, 64))
    before = {key: value.clone() for key, value in model.state_dict().items()}
    made = folded(model, 64)
    assert made is not model
    norms = [sum(isinstance(module, nn.BatchNorm2d) for module in network.modules()) for network in (model, made)]
    # In networks of the kind norm → activation → convolution some norms follow sums.
    assert norms[1] < 0.6 * norms[0] if name in ("densenet121", "wide_resnet28_2") else norms[1] == 0
    images = torch.rand(3, 3, 64, 64)
    with torch.inference_mode():
        assert torch.allclose(made(images), model(images), rtol=1e-3, atol=1e-4 * float(model(images).abs().max()))
        features = made.forward_features(images)
        assert torch.allclose(made.forward_head(features), model(images), rtol=1e-3, atol=1e-3)
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())


def test_by_hand() -> None:
    model = nn.Sequential(nn.Conv2d(3, 1, 1, bias=True), nn.BatchNorm2d(1)).eval()
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([1.0, 2.0, 3.0]).view(1, 3, 1, 1))
        model[0].bias.fill_(0.5)
        model[1].weight.fill_(4.0)
        model[1].bias.fill_(-1.0)
        model[1].running_mean.fill_(0.25)
        model[1].running_var.fill_(4.0 - model[1].eps)
    made = folded(model, 8)
    assert made[0].weight.flatten().tolist() == pytest.approx([2, 4, 6])
    assert made[0].bias.tolist() == pytest.approx([-1 + 2 * (0.5 - 0.25)])
    assert isinstance(made[1], nn.Identity)


def test_a_convolution_that_is_seen_elsewhere_too_is_not_folded() -> None:
    class Skipping(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm = nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            found = self.conv(images)
            return self.norm(found) + found

    model = with_statistics(Skipping())
    assert folded(model, 8) is model


def test_a_convolution_that_is_used_twice_is_not_folded() -> None:
    shared = nn.Conv2d(3, 3, 1)
    model = with_statistics(nn.Sequential(shared, nn.BatchNorm2d(3), shared, nn.BatchNorm2d(3)))
    made = folded(model, 8)
    assert sum(isinstance(module, nn.BatchNorm2d) for module in made.modules()) == 2


def test_a_network_without_any_stays() -> None:
    model = timm.create_model("test_vit", num_classes=3).eval()
    made = folded(model, 160)
    images = torch.rand(2, 3, 160, 160)
    with torch.inference_mode():
        assert torch.equal(made(images), model(images))
