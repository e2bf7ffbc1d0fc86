"""What a step needs in memory: a part of the batch at a time, activations that are computed again."""

import pytest
import torch

from selftrain.learning.algorithm import find_algorithm
from tests.algorithms.tiny import ARMS, NAMES, new_loop, random_batch, weights

IN_PARTS = [name for name in NAMES if find_algorithm(name, {})[0].descends_one_loss()]
"""Those whose step is down one loss."""


@pytest.mark.parametrize("name", IN_PARTS)
def test_a_batch_in_parts_is_a_step_down_the_mean_of_their_losses(name: str) -> None:
    whole, parted = new_loop(name, plain=True), new_loop(name, plain=True, parts=3)
    for loop in (whole, parted):
        loop.algorithm.train()
    for step in range(3):
        batch = random_batch(whole.algorithm, step)
        of_whole, of_parts = whole.one_step(batch), parted.one_step(batch)
        assert of_whole.keys() == of_parts.keys()
        torch.testing.assert_close(of_whole["loss"], of_parts["loss"], rtol=1e-3, atol=1e-5)
    for one, other in zip(weights(whole), weights(parted), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=2e-5)


@pytest.mark.parametrize("arm", ARMS)
def test_activations_that_are_computed_again_change_nothing(arm: str) -> None:
    name, parameters = ARMS[arm]
    kept, again = new_loop(name, **parameters), new_loop(name, checkpointed=True, **parameters)
    for loop in (kept, again):
        loop.algorithm.train()
    for step in range(3):
        batch = random_batch(kept.algorithm, step)
        assert torch.equal(kept.one_step(batch)["loss"], again.one_step(batch)["loss"])
    for one, other in zip(weights(kept), weights(again), strict=True):
        assert torch.equal(one, other)


def test_a_batch_in_parts_needs_a_parts_memory() -> None:
    most = {}
    for parts in (1, 3):
        loop, held = new_loop("noisy_student", plain=True, parts=parts), Held()
        loop.algorithm.train()
        with torch.autograd.graph.saved_tensors_hooks(held.pack, lambda saved: saved.tensor):
            loop.one_step(random_batch(loop.algorithm, 0))
        most[parts] = held.most
        assert held.bytes == 0, "the graph is gone after the step"
    assert most[3] < 0.5 * most[1]


class Held:
    """The bytes of what backward passes keep, at each moment."""

    def __init__(self) -> None:
        self.bytes = self.most = 0

    def pack(self, tensor: torch.Tensor) -> "Saved":
        return Saved(tensor, self)


class Saved:
    def __init__(self, tensor: torch.Tensor, held: Held) -> None:
        self.tensor, self.held = tensor.detach(), held
        held.bytes += tensor.nbytes
        held.most = max(held.most, held.bytes)

    def __del__(self) -> None:
        self.held.bytes -= self.tensor.nbytes
