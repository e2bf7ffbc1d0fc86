import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from selftrain.images.order import shuffled, stream


@settings(deadline=None)
@given(st.integers(1, 3000), st.integers(0, 2**31), st.integers(0, 100))
def test_a_shuffle_is_a_permutation(size: int, seed: int, epoch: int) -> None:
    assert sorted(shuffled(np.arange(size), size, seed, epoch).tolist()) == list(range(size))


def test_any_position_can_be_asked_alone() -> None:
    whole = shuffled(np.arange(1000), 1000, 3, 5)
    places = np.array([999, 0, 500])
    assert shuffled(places, 1000, 3, 5).tolist() == whole[places].tolist()


def test_a_huge_shuffle_costs_no_memory() -> None:
    places = np.arange(10**12, 10**12 + 1000)
    items = shuffled(places, 3 * 10**12, 0, 0)
    assert len(set(items.tolist())) == 1000
    assert items.min() >= 0
    assert items.max() < 3 * 10**12
    assert abs(items.mean() / (1.5 * 10**12) - 1) < 0.1


def test_seeds_and_epochs_are_other_shuffles() -> None:
    orders = {tuple(shuffled(np.arange(50), 50, seed, epoch)) for seed in range(10) for epoch in range(10)}
    assert len(orders) == 100


def test_every_item_comes_to_every_place_equally_often() -> None:
    counts = np.zeros((8, 8))
    trials = 4000
    for seed in range(trials):
        counts[np.arange(8), shuffled(np.arange(8), 8, seed, 0)] += 1
    # Chi-square of 64 cells with 49 degrees of freedom: mean 49, deviation 9.9.
    chi_square = ((counts - trials / 8) ** 2 / (trials / 8)).sum()
    assert chi_square < 49 + 5 * 9.9


@pytest.mark.parametrize("batch", [1, 7, 10, 64])
def test_a_stream_runs_through_whole_epochs(batch: int) -> None:
    size, total = 10, 640
    items = np.concatenate([stream(start, batch, size, 4)[1] for start in range(0, total - batch + 1, batch)])
    epochs = np.concatenate([stream(start, batch, size, 4)[0] for start in range(0, total - batch + 1, batch)])
    whole = len(items) // size * size
    for start in range(0, whole, size):
        assert sorted(items[start : start + size].tolist()) == list(range(size))
        assert set(epochs[start : start + size].tolist()) == {start // size}
