import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import timm
import torch

from selftrain.networks.export import export_model
from selftrain.networks.models import check_takes, create_model, load_model, normalization, to_input, without_memory
from selftrain.plumbing.errors import UserError


def test_the_export_loads_in_plain_timm_anywhere(tmp_path: Path) -> None:
    model = create_model("test_resnet", 3, 48, stochastic_depth=0.2)
    export_model(model, tmp_path / "m", classes=["a", "b", "c"], image_size=48, crop_fraction=0.9)
    program = (
        "import timm, torch, json; torch.manual_seed(0)\n"
        f"m = timm.create_model('local-dir:{tmp_path / 'm'}', pretrained=True).eval()\n"
        "print(json.dumps([m(torch.ones(1, 3, 48, 48)).tolist(), m.pretrained_cfg['label_names'], list(m.pretrained_cfg['input_size'])]))"
    )
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd="/", env=environment
    )
    logits, names, size = json.loads(result.stdout)
    assert torch.allclose(torch.tensor(logits), model.eval()(torch.ones(1, 3, 48, 48)), atol=1e-6)
    assert (names, size) == (["a", "b", "c"], [3, 48, 48])


def test_load_model_gives_back_weights_and_settings(tmp_path: Path) -> None:
    model = create_model("test_resnet", 2, 32)
    export_model(model, tmp_path, classes=["a", "b"], image_size=32, crop_fraction=1.0)
    loaded, config = load_model(tmp_path)
    assert not loaded.training
    assert all(
        torch.equal(a, b) for a, b in zip(model.state_dict().values(), loaded.state_dict().values(), strict=True)
    )
    assert config["label_names"] == ["a", "b"]
    assert config["pretrained_cfg"]["input_size"] == [3, 32, 32]
    assert config["pretrained_cfg"]["crop_pct"] == 1.0


def test_user_errors(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="timm knows no model 'resnet5O'; did you mean"):
        create_model("resnet5O", 2, 32)
    with pytest.raises(UserError, match=r"stochastic_depth: 'vgg11' has none"):
        create_model("vgg11", 2, 32, stochastic_depth=0.1)
    with pytest.raises(UserError, match="holds no model, which has a config.json"):
        load_model(tmp_path)
    export_model(create_model("test_resnet", 2, 32), tmp_path, classes=["a", "b"], image_size=32, crop_fraction=1.0)
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(UserError, match="not a whole timm model folder"):
        load_model(tmp_path)


@pytest.mark.parametrize(("name", "size"), [("test_resnet", 32), ("vit_tiny_patch16_224", 64)])
def test_a_model_starts_from_the_weights_of_another_even_at_another_size(name: str, size: int, tmp_path: Path) -> None:
    teacher = create_model(name, 3, 48)
    export_model(teacher, tmp_path, classes=["a", "b", "c"], image_size=48, crop_fraction=1.0)
    same = create_model(name, 3, 48, weights=str(tmp_path))
    assert all(torch.equal(one, other) for one, other in zip(teacher.parameters(), same.parameters(), strict=True))
    larger = create_model(name, 3, size, weights=str(tmp_path))
    assert larger.eval()(torch.randn(1, 3, size, size)).shape == (1, 3)
    assert torch.equal(larger.get_classifier().weight, teacher.get_classifier().weight)
    with pytest.raises(UserError, match="cannot start a test_efficientnet"):
        create_model("test_efficientnet", 3, 48, weights=str(tmp_path))


def test_to_input_normalises_like_timm() -> None:
    model = timm.create_model("test_resnet", num_classes=2)
    mean, std = normalization(model)
    images = torch.randint(0, 256, (2, 5, 5, 3), dtype=torch.uint8)
    expected = (images.float() / 255 - torch.tensor(mean)) / torch.tensor(std)
    assert torch.allclose(to_input(images, mean, std, torch.device("cpu")), expected.permute(0, 3, 1, 2), atol=1e-6)


def test_transformers_of_a_fixed_size_are_made_for_the_size_that_is_asked(tmp_path: Path) -> None:
    model = create_model("vit_tiny_patch16_224", 3, 48)
    export_model(model, tmp_path, classes=["a", "b", "c"], image_size=48, crop_fraction=1.0)
    loaded, _ = load_model(tmp_path)
    images = torch.randn(2, 3, 48, 48)
    torch.testing.assert_close(loaded(images), model.eval()(images))


def test_b6_wide_has_the_blocks_of_b6_and_its_own_width() -> None:
    with torch.device("meta"):
        model, b6 = timm.create_model("efficientnet_b6_wide"), timm.create_model("tf_efficientnet_b6")
    assert [len(stage) for stage in model.blocks] == [len(stage) for stage in b6.blocks]
    assert (model.conv_stem.out_channels, model.num_features) == (32 * 5, 1280 * 5)
    assert sum(parameter.numel() for parameter in model.parameters()) == 316_649_180


def test_wide_resnet_is_the_papers_and_goes_through_a_model_folder(tmp_path: Path) -> None:
    model = create_model("wide_resnet28_2", 10, 32)
    assert sum(parameter.numel() for parameter in model.parameters()) == 1_467_610
    images = torch.randn(2, 3, 32, 32)
    convolutions = [module for module in model.modules() if isinstance(module, torch.nn.Conv2d)]
    assert len([module for module in convolutions if module.kernel_size == (3, 3)]) == 1 + 3 * 4 * 2
    features = model.eval().forward_features(images)
    assert features.shape == (2, 128, 8, 8)
    assert torch.equal(model.forward_head(features), model(images))
    assert model.forward_head(features, pre_logits=True).shape == (2, 128)
    export_model(model, tmp_path, classes=list("abcdefghij"), image_size=32, crop_fraction=1.0)
    loaded, _ = load_model(tmp_path)
    assert torch.allclose(loaded(images), model(images))
    with pytest.raises(UserError, match="stochastic_depth"):
        create_model("wide_resnet28_2", 10, 32, stochastic_depth=0.1)


@pytest.mark.parametrize(
    ("name", "images", "image_size", "fits"),
    [
        ("resnet18", 1, 32, False),  # BatchNorm over one value
        ("resnet18", 2, 32, True),
        ("vgg11_bn", 2, 16, False),  # smaller than its pooling
        ("vit_tiny_patch16_224", 1, 48, True),
    ],
)
def test_what_a_model_cannot_be_trained_on_is_told_before(name: str, images: int, image_size: int, fits: bool) -> None:
    network = create_model(name, 2, image_size).train()
    message = rf"'{name}' cannot be trained on {images} images of {image_size} pixels at a time .*change `batch_size`"
    if fits:
        check_takes(without_memory(name, {}, image_size), name, images, image_size)
        network(torch.zeros(images, 3, image_size, image_size))
        return
    with pytest.raises(UserError, match=message):
        check_takes(without_memory(name, {}, image_size), name, images, image_size)
    with pytest.raises((ValueError, RuntimeError)):
        network(torch.zeros(images, 3, image_size, image_size))


def test_a_model_whose_layers_share_weights_goes_through_a_model_folder(tmp_path: Path) -> None:
    model = create_model("coat_tiny", 3, 64).eval()
    whole = model.state_dict(keep_vars=True).values()
    assert len({id(value) for value in whole}) < len(whole)
    export_model(model, tmp_path / "m", classes=["a", "b", "c"], image_size=64, crop_fraction=1.0)
    images = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        assert torch.equal(load_model(tmp_path / "m")[0](images), model(images))
