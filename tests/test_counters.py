import numpy as np

from selftrain.counters import mix, mixed_int


def splitmix64(state: int) -> int:
    mask = 2**64 - 1
    state = (state + 0x9E3779B97F4A7C15) & mask
    state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & mask
    state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & mask
    return state ^ (state >> 31)


def test_mix_is_splitmix64_chained_over_the_words() -> None:
    assert int(mix(7)) == splitmix64(7)
    assert int(mix(7, 11)) == splitmix64(splitmix64(7) ^ 11)
    assert int(mix(-1)) == splitmix64(2**64 - 1)


def test_arrays_are_hashed_element_by_element() -> None:
    words = np.array([3, -5, 2**62], dtype=np.int64)
    assert mix(9, words).tolist() == [int(mix(9, int(word))) for word in words]
    assert mix(9, words.view(np.uint64)).tolist() == mix(9, words).tolist()


def test_bits_are_balanced_and_neighbours_differ() -> None:
    values = mix(0, np.arange(20_000))
    bits = np.unpackbits(values.view(np.uint8)).reshape(-1, 64).mean(axis=0)
    assert np.abs(bits - 0.5).max() < 0.02
    assert len(np.unique(values)) == len(values)


def test_mixed_int_fits_what_python_seeds_take() -> None:
    assert all(0 <= mixed_int(seed, 5) < 2**63 for seed in range(1000))
