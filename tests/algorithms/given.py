"""Networks handed to algorithms in tests, without a training around them."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from selftrain.learning.algorithm import Teacher


class GivenNetworks:
    """What algorithms know as ``Networks``: ``make`` makes every network, ``of_round`` is the round's teacher."""

    def __init__(self, make: Callable[[str], nn.Module], of_round: nn.Module | None = None) -> None:
        self.make, self.of_round = make, of_round

    def new(self, name: str) -> nn.Module:
        return self.make(name)

    def teacher(self) -> Teacher:
        assert self.of_round is not None
        return GivenTeacher(self.of_round)

    def feature_channels(self, network: nn.Module, count: int) -> list[int]:
        return network.channels[-count:]  # type: ignore[index, return-value]


class GivenTeacher:
    """A network as a teacher, as it is."""

    def __init__(self, network: nn.Module) -> None:
        self.network = network.eval()

    @torch.no_grad()
    def log_probs(self, images: Tensor) -> Tensor:
        return self.network(images).log_softmax(dim=1)

    @torch.no_grad()
    def features(self, images: Tensor, count: int) -> list[Tensor]:
        return self.network.forward_intermediates(images, indices=count, intermediates_only=True)  # type: ignore[operator]

    def feature_channels(self, count: int) -> list[int]:
        return self.network.channels[-count:]  # type: ignore[index, return-value]
