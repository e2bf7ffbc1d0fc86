import gc
from typing import Any

import pytest
import torch

from selftrain.networks.activation_checkpointing import checkpoint_activations
from selftrain.networks.layers import blocks_of
from selftrain.networks.model_noise import ModelNoise
from selftrain.networks.models import create_model
from selftrain.params.noise import NoiseConfig
from selftrain.plumbing.errors import UserError

NOISE = NoiseConfig.model_validate(
    {"dropout": 0.3, "stochastic_depth": 0.4, "on_labeled": ["dropout"], "on_unlabeled": ["stochastic_depth"]}
)
SOURCES = {"labeled": 3, "unlabeled": 5}


def gradients(name: str, checkpointed: bool) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor], int]:
    """(gradients, buffers, bytes that the forward pass kept) of a step on noised rows."""
    torch.manual_seed(0)
    network = create_model(name, 3, 64, stochastic_depth=0.4).train()
    noise = ModelNoise(network, NOISE)
    if checkpointed:
        checkpoint_activations(network, noise, name)
    kept: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        kept[tensor.data_ptr()] = tensor.nbytes
        return tensor

    images = torch.randn(8, 3, 64, 64)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor), noise.noised_rows(SOURCES):
        logits = network(images)
    loss = torch.nn.functional.cross_entropy(logits, torch.arange(8) % 3) + torch.rand(())
    names, parameters = zip(*network.named_parameters(), strict=True)
    found = torch.autograd.grad(loss, parameters)
    return dict(zip(names, found, strict=True)), {k: v.clone() for k, v in network.named_buffers()}, sum(kept.values())


@pytest.mark.parametrize("name", ["test_resnet", "test_vit", "test_efficientnet", "test_convnext"])
def test_a_step_is_the_same_in_less_memory(name: str) -> None:
    """The noise of each row, BatchNorm's statistics, and random numbers after it."""
    plain, plain_buffers, whole = gradients(name, checkpointed=False)
    again, buffers, kept = gradients(name, checkpointed=True)
    gc.collect()
    assert kept < 0.8 * whole
    for parameter, value in plain.items():
        torch.testing.assert_close(again[parameter], value, rtol=0, atol=0, msg=parameter)
    for buffer, value in plain_buffers.items():
        assert torch.equal(buffers[buffer], value), buffer


@pytest.mark.parametrize(
    ("name", "first", "last", "count"),
    [
        ("resnet18", "layer1.0", "layer4.1", 8),
        ("vit_tiny_patch16_224", "blocks.0", "blocks.10", 11),
        ("efficientnet_b0", "blocks.0.0", "blocks.5.3", 15),
        ("mvitv2_tiny", "stages.0.blocks.0", "stages.2.blocks.4", 8),
        ("dla34", "base_layer", "level5", 9),
        ("densenet121", "features.denseblock1.denselayer1", "features.denseblock4.denselayer16", 58 - 3),
    ],
)
def test_blocks_are_timms_layers(name: str, first: str, last: str, count: int) -> None:
    """To timm the last block of a ViT is one layer with the norm after it, and that of a dense block with the
    transition after it; these have no module of their own.
    """
    with torch.device("meta"):
        network = create_model(name, 3, 224)
    names: dict[Any, str] = {module: path for path, module in network.named_modules()}
    found = [names[block] for block in blocks_of(network)]
    assert (found[0], found[-1], len(found)) == (first, last, count)


def test_a_network_without_blocks_is_named() -> None:
    with torch.device("meta"):
        network = create_model("vgg11_bn", 3, 32)
    with pytest.raises(UserError, match="train.activation_checkpointing: 'vgg11_bn' has no blocks"):
        checkpoint_activations(network, ModelNoise(network, NoiseConfig()), "vgg11_bn")
    own = torch.nn.Linear(2, 2)  # not timm's
    with pytest.raises(UserError, match="train.activation_checkpointing: 'mine' has no blocks"):
        checkpoint_activations(own, ModelNoise(own, NoiseConfig()), "mine")


def test_without_gradients_nothing_is_computed_twice() -> None:
    network = create_model("test_resnet", 3, 32).eval()
    calls: list[int] = []
    network.layer1[0].conv1.register_forward_hook(lambda *_: calls.append(1))
    checkpoint_activations(network, ModelNoise(network, NoiseConfig()), "test_resnet")
    with torch.no_grad():
        network(torch.zeros(1, 3, 32, 32))
    assert len(calls) == 1
    network(torch.zeros(1, 3, 32, 32)).sum().backward()
    assert len(calls) == 3
