"""BatchNorm over processes, held against PyTorch's and timm's in one process with all images."""

import copy
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from timm.layers.norm_act import BatchNormAct2d
from torch import Tensor, distributed, multiprocessing, nn

from selftrain.networks.sync_batch_norm import synchronize_batch_norm
from selftrain.plumbing.errors import UserError
from tests.conftest import free_port

NORMS: dict[str, Callable[[], nn.Module]] = {
    "1d": lambda: nn.BatchNorm1d(3),
    "2d, a mean of all batches": lambda: nn.BatchNorm2d(3, momentum=None),
    "2d, without weights": lambda: nn.BatchNorm2d(3, affine=False),
    "2d, not remembered": lambda: nn.BatchNorm2d(3, track_running_stats=False),
    "with an activation": lambda: BatchNormAct2d(3, momentum=0.3),
}


def given(name: str) -> tuple[nn.Module, Tensor]:
    """A network and the images of two steps (2, 8, 3, …), whose mean is large beside their variance."""
    torch.manual_seed(0)
    norm = NORMS[name]()
    if norm.affine:
        nn.init.normal_(norm.weight)
        nn.init.normal_(norm.bias)
    places = [] if name == "1d" else [2, 2]
    spread = torch.tensor([0.5, 1, 2]).view(-1, *[1] * len(places))
    return nn.Sequential(norm), torch.randn(2, 8, 3, *places) * spread + 100


def seen(network: nn.Module, images: Tensor) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
    """What two steps give: outputs; gradients by images, and those gradients' own; the network's parameters' gradients
    and buffers, and what it gives in eval mode.
    """
    outputs, by_images, own = [], [], []
    network.train()
    for step in images:
        step = step.clone().requires_grad_()
        out = network(step)
        slope = torch.autograd.grad(out.pow(3).sum(), step, create_graph=True)[0]
        curved = torch.autograd.grad(slope.pow(2).sum(), [step, *network.parameters()])
        outputs.append(out.detach())
        by_images += [slope.detach(), curved[0]]
        own += curved[1:]
    network.eval()
    if [*network.buffers()]:  # else each process normalizes by its own batch, as PyTorch's do
        outputs.append(network(images[0]).detach())
    return outputs, by_images, [*own, *network.state_dict().values()]


def in_a_process(rank: int, port: int, folder: Path) -> None:
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    distributed.init_process_group("gloo", rank=rank, world_size=2)
    found = {}
    for name in NORMS:
        network, images = given(name)
        synchronize_batch_norm(network)
        mine = images.chunk(2, dim=1)[rank]
        in_float = copy.deepcopy(network)(mine[0]).detach()
        outputs, by_images, own = seen(network.double(), mine.double())
        for slope in own[: 2 * len([*network.parameters()])]:  # each process has its own images'
            distributed.all_reduce(slope)
        found[name] = [[in_float, *outputs, *by_images], own]
    with pytest.raises(UserError, match="train.sync_batchnorm: 0 is a LazyBatchNorm2d, which cannot be synchronized"):
        synchronize_batch_norm(nn.Sequential(nn.LazyBatchNorm2d()))
    torch.save(found, folder / f"{rank}.pt")
    distributed.destroy_process_group()


def test_two_processes_see_what_one_would_of_all_images(tmp_path: Path) -> None:
    multiprocessing.spawn(in_a_process, (free_port(), tmp_path), nprocs=2)
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    for name in NORMS:
        network, images = given(name)
        outputs, by_images, own = seen(network.double(), images.double())
        (in_float, *rows), (in_float_too, *rows_too) = first[name][0], second[name][0]
        torch.testing.assert_close(torch.cat([in_float, in_float_too]), outputs[0].float(), rtol=1e-4, atol=1e-4)
        for whole, one, other in zip([*outputs, *by_images], rows, rows_too, strict=True):
            torch.testing.assert_close(torch.cat([one, other]), whole, rtol=1e-8, atol=1e-8)
        for whole, one, other in zip(own, first[name][1], second[name][1], strict=True):
            torch.testing.assert_close(one, whole, rtol=1e-8, atol=1e-8)
            assert torch.equal(one, other)


def test_one_process_keeps_its_norms() -> None:
    network = nn.Sequential(nn.BatchNorm2d(3))
    synchronize_batch_norm(network)
    assert type(network[0]) is nn.BatchNorm2d
