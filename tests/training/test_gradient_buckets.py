import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, distributed, multiprocessing, nn

from selftrain.learning.runtime import plain_gradient
from selftrain.training import gradient_buckets
from selftrain.training.gradient_buckets import averaged_gradient, bucketed
from tests.conftest import free_port


class Net(nn.Module):
    """Layers of several sizes; one lies with its channels last, one is used twice, one only in some losses, one never."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 20, 2).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.shared, self.last = nn.Linear(20, 20), nn.Linear(20, 3)
        self.never, self.sometimes = nn.Linear(2, 2), nn.Linear(20, 3)

    def forward(self, images: Tensor, sometimes: bool) -> Tensor:
        hidden = self.shared(self.shared(self.first(images).flatten(1).relu()).relu())
        return self.last(hidden) + (self.sometimes(hidden) if sometimes else 0)


def network() -> tuple[Net, Tensor]:
    torch.manual_seed(0)
    return Net(), torch.randn(8, 3, 2, 2)


PARTS = ((True,), (False,), (True, True), (True, False), (False, True), (False, False, True, False))
"""Whether each part of a process's images touches all layers."""


def losses(net: Net, mine: Tensor, parts: tuple[bool, ...]) -> Iterator[Tensor]:
    """Each part's share of the mean over a process's images."""
    for images, sometimes in zip(mine.chunk(len(parts)), parts, strict=True):
        yield net(images, sometimes).square().mean() / len(parts)


def in_a_process(rank: int, port: int, folder: Path) -> None:
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    distributed.init_process_group("gloo", rank=rank, world_size=2)
    gradient_buckets.FIRST, gradient_buckets.LATER = 300, 1200
    net, images = network()
    parameters, found = [*net.parameters()], []
    for parts in PARTS:
        *first, last = losses(net, images.chunk(2)[rank], parts)
        so_far = None
        for loss in first:
            so_far = plain_gradient(loss, parameters, so_far)
        found.append(averaged_gradient(last, parameters, so_far))
    torch.save(found, folder / f"{rank}.pt")
    distributed.destroy_process_group()


def test_the_mean_over_two_processes_is_the_whole_batchs_gradient(tmp_path: Path) -> None:
    multiprocessing.spawn(in_a_process, (free_port(), tmp_path), nprocs=2)
    one, two = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    net, images = network()
    for parts, first, second in zip(PARTS, one, two, strict=True):
        whole = sum(loss for mine in images.chunk(2) for loss in losses(net, mine, parts)) / 2
        parameters = [*net.parameters()]
        expected = torch.autograd.grad(whole, parameters, allow_unused=True)
        untouched = [slope is None for slope in expected]
        assert untouched == [slope is None for slope in first]
        assert sum(untouched) == (2 if any(parts) else 4)
        for parameter, slope, found, other in zip(parameters, expected, first, second, strict=True):
            if slope is not None:
                torch.testing.assert_close(found, slope)
                assert found.stride() == parameter.stride(), "the optimizer would move it"
                assert torch.equal(found, other), "processes must not drift apart"


def test_buckets_go_from_the_last_layer_to_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gradient_buckets, "FIRST", 40)
    monkeypatch.setattr(gradient_buckets, "LATER", 100)
    sizes = [10, 4, 30, 6, 5, 5]
    parameters = [torch.zeros(size) for size in sizes]
    assert bucketed(parameters) == [[5, 4], [3], [2], [1, 0]]
    parameters[4] = parameters[4].double()
    assert bucketed(parameters) == [[5], [4], [3], [2], [1, 0]]
    assert bucketed([]) == []
