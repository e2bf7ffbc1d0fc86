import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from selftrain.corpus import near_hashes
from selftrain.corpus.near_hashes import near_pairs


@given(
    pool=st.lists(st.integers(0, 2**64 - 1), max_size=20),
    flips=st.lists(st.tuples(st.integers(0, 19), st.sets(st.integers(0, 63), max_size=15)), max_size=20),
    most=st.integers(0, 15),
)
def test_near_pairs_are_those_of_a_brute_force(pool: list[int], flips: list[tuple[int, set[int]]], most: int) -> None:
    others = [pool[place % len(pool)] ^ sum(1 << bit for bit in bits) for place, bits in flips] if pool else []
    rows, columns = near_pairs(np.array(pool, np.uint64), np.array(others, np.uint64), most)
    expected = {
        (row, column)
        for row, one in enumerate(pool)
        for column, other in enumerate(others)
        if (one ^ other).bit_count() <= most
    }
    assert set(zip(rows.tolist(), columns.tolist(), strict=True)) == expected


def test_pairs_are_the_same_however_few_are_compared_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    base = rng.integers(0, 2**63, 20, np.uint64)
    # Many have one value in a band.
    pool, others = (
        base[rng.integers(0, 20, 500)] ^ (np.uint64(1) << rng.integers(0, 64, 500, np.uint64)) for _ in "ab"
    )
    expected = np.nonzero(np.bitwise_count(pool[:, None] ^ others[None]) <= 2)
    assert len(expected[0]) > 10_000
    for block in (1, 100, 2**18):
        monkeypatch.setattr(near_hashes, "BLOCK", block)
        np.testing.assert_array_equal(near_pairs(pool, others, 2), expected)
