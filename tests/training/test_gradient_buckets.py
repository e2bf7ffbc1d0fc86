import os
from pathlib import Path

import pytest
import torch
from torch import Tensor, distributed, multiprocessing, nn

from selftrain.training import gradient_buckets
from selftrain.training.gradient_buckets import averaged_gradient, bucketed
from tests.conftest import free_port


class Net(nn.Module):
    """Layers of several sizes; one is used twice, one only in some losses, one never."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.shared, self.last = nn.Linear(7, 20), nn.Linear(20, 20), nn.Linear(20, 3)
        self.never, self.sometimes = nn.Linear(2, 2), nn.Linear(20, 3)

    def forward(self, images: Tensor, sometimes: bool) -> Tensor:
        hidden = self.shared(self.shared(self.first(images).relu()).relu())
        return self.last(hidden) + (self.sometimes(hidden) if sometimes else 0)


def network() -> tuple[Net, Tensor]:
    torch.manual_seed(0)
    return Net(), torch.randn(8, 7)


def in_a_process(rank: int, port: int, folder: Path) -> None:
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    distributed.init_process_group("gloo", rank=rank, world_size=2)
    gradient_buckets.FIRST, gradient_buckets.LATER = 300, 1200
    net, images = network()
    mine = images[rank * 4 : rank * 4 + 4]
    found = [
        averaged_gradient(net(mine, sometimes).square().mean(), [*net.parameters()]) for sometimes in (True, False)
    ]
    torch.save(found, folder / f"{rank}.pt")
    distributed.destroy_process_group()


def test_the_mean_over_two_processes_is_the_whole_batchs_gradient(tmp_path: Path) -> None:
    multiprocessing.spawn(in_a_process, (free_port(), tmp_path), nprocs=2)
    one, two = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    net, images = network()
    for sometimes, first, second in zip((True, False), one, two, strict=True):
        expected = torch.autograd.grad(net(images, sometimes).square().mean(), [*net.parameters()], allow_unused=True)
        untouched = [slope is None for slope in expected]
        assert untouched == [slope is None for slope in first]
        assert sum(untouched) == (2 if sometimes else 4)
        for slope, found, other in zip(expected, first, second, strict=True):
            if slope is not None:
                torch.testing.assert_close(found, slope)
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
