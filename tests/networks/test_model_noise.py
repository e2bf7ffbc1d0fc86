from typing import Any

import pytest
import timm
import torch

from selftrain.networks.model_noise import ModelNoise, RowDropPath
from selftrain.networks.models import create_model
from selftrain.params.noise import NoiseConfig

SOURCES = {"labeled": 3, "unlabeled": 5}


def noised(name: str = "test_resnet", image_size: int = 32, **noise: Any) -> tuple[torch.nn.Module, ModelNoise]:
    torch.manual_seed(0)
    config = NoiseConfig(**noise)
    model = create_model(name, 4, image_size, stochastic_depth=config.stochastic_depth)
    return in_training(model), ModelNoise(model, config)


def in_training(model: torch.nn.Module) -> torch.nn.Module:
    """Training mode, but for BatchNorm's: a row's output is then its own affair."""
    model.train()
    for part in model.modules():
        if isinstance(part, torch.nn.modules.batchnorm._BatchNorm):
            torch.nn.init.ones_(part.weight)  # timm starts residual branches at zero: nothing to drop
            part.eval()
    return model


@pytest.mark.parametrize("kind", ["dropout", "stochastic_depth"])
@pytest.mark.parametrize("quiet", ["labeled", "unlabeled"])
def test_a_noise_acts_on_the_rows_it_should(kind: str, quiet: str) -> None:
    other = tuple({"augmentation", "stochastic_depth", "dropout"} - {kind})
    model, noise = noised(**{kind: 0.5, f"on_{quiet}": other})
    images = torch.randn(8, 3, 32, 32)
    clean = model.eval()(images)
    in_training(model)
    same = torch.zeros(8, dtype=torch.int64)
    for _ in range(20):
        with noise.noised_rows(SOURCES):
            same += torch.isclose(model(images), clean, atol=1e-5).all(dim=1)
    quiet_rows = slice(0, 3) if quiet == "labeled" else slice(3, 8)
    assert (same[quiet_rows] == 20).all()
    assert (same[slice(3, 8) if quiet == "labeled" else slice(0, 3)] < 20).all()


def test_noise_is_on_every_row_while_training_and_off_in_eval() -> None:
    model, noise = noised(dropout=0.5)
    images = torch.randn(8, 3, 32, 32)
    with noise.noised_rows(SOURCES):
        assert (model(images) != model(images)).any(dim=1).all()
    assert (model(images) != model(images)).any(dim=1).all()
    model.eval()
    assert torch.equal(model(images), model(images))


def test_dropout_is_timms() -> None:
    model, _ = noised("test_efficientnet", dropout=0.5)
    theirs = timm.create_model("test_efficientnet", num_classes=4, drop_rate=0.5)
    theirs.load_state_dict(model.state_dict())
    in_training(theirs)
    images = torch.randn(8, 3, 32, 32)
    torch.manual_seed(1)
    expected = theirs(images)
    torch.manual_seed(1)
    torch.testing.assert_close(model(images), expected)


def test_survival_falls_linearly_to_the_last_block() -> None:
    # Section 3.1: survival probability 0.8 at the final layer, linear decay before.
    model, _ = noised("tf_efficientnet_b0", stochastic_depth=0.2)
    rates = [part.drop_path.drop_prob for part in model.modules() if isinstance(part, RowDropPath)]
    blocks = sum(len(stage) for stage in model.blocks)  # type: ignore[arg-type, union-attr]
    # Blocks without a shortcut have nothing to drop; the others lie on the line.
    assert rates == pytest.approx([0.2 * place / blocks for place in range(1, blocks)])


@pytest.mark.parametrize(("name", "size"), [("deit_tiny_distilled_patch16_224", 32), ("crossvit_9_240", 240)])
def test_networks_with_several_classifiers_drop_before_each(name: str, size: int) -> None:
    model, _ = noised(name, size, dropout=0.5)
    images = torch.randn(4, 3, size, size)
    assert (model(images) != model(images)).any()
