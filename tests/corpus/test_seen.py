import numpy as np
import pytest

from selftrain.corpus import seen
from selftrain.corpus.seen import Seen


def test_it_is_a_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seen, "RECENT", 16)
    rng = np.random.default_rng(0)
    numbers = [*rng.integers(0, 2**64, 500, dtype=np.uint64).tolist(), *rng.integers(0, 300, 500).tolist()]
    rng.shuffle(numbers)
    numbers += [0, 2**64 - 1, 0, *numbers[:50]]
    mine, known = Seen(), set[int]()
    for number in map(int, numbers):
        assert mine.add(number) == (number in known)
        known.add(number)
    sizes = [len(array) for array in mine._sorted]
    assert sizes == sorted(sizes, reverse=True)
    assert len(sizes) <= 6
    assert sum(sizes) + len(mine._recent) == len(known)
