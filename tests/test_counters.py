import ast
from pathlib import Path

import numpy as np

from selftrain.counters import Stream, mix, mixed_int, word


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
    for words in ((0,), (3, Stream.RUN, 2**62), (-5, 7), (2**63 - 1, -1)):
        assert mixed_int(*words) == int(mix(*words)) >> 1


SOURCES = sorted((Path(__file__).parents[1] / "src" / "selftrain").rglob("*.py"))


def test_every_hash_of_a_seed_names_its_stream() -> None:
    """``mix(seed, Stream.X, …)``: what is hashed first is a seed, or another hash, whose names are listed here."""
    hashes = {"noise_seed", "stream", "self.stream"}
    unnamed = []
    for source in SOURCES:
        for call in ast.walk(ast.parse(source.read_text())):
            if (
                isinstance(call, ast.Call)
                and ast.unparse(call.func) in ("mix", "mixed_int")
                and source.stem != "counters"
            ):
                first, second = map(ast.unparse, call.args[:2])
                named = any(name in second for name in ("Stream.", "self.stream", "ORDER[", "NOISE[", "UNIFORM["))
                if not named and first not in hashes and source.name != "order.py":
                    unnamed.append(f"{source}: {ast.unparse(call)}")
    assert not unnamed


def test_no_two_draws_share_a_stream() -> None:
    uses = {stream.name: [] for stream in Stream}
    for source in SOURCES:
        for name in ast.walk(ast.parse(source.read_text())):
            if isinstance(name, ast.Attribute) and ast.unparse(name.value) == "Stream":
                uses[name.attr].append(source.name)
    assert all(uses.values()), "each is used"
    assert {name: files for name, files in uses.items() if len(set(files)) > 1} == {}
    twice = {name for name, files in uses.items() if len(files) > 1}
    assert twice == {"ROBUSTNESS_VIEWS"}, "which seeds its passes and, in each, its images"


def test_libraries_generators_are_seeded_by_a_stream_too() -> None:
    """But for made-up images and data, for pictures, and for which clusters `ask` begins with: no run draws these."""
    own = {"digits.py", "two_moons.py", "made_up.py", "folding.py", "formats.py", "brain.py", "ask.py"}
    unnamed = []
    for source in SOURCES:
        for call in ast.walk(ast.parse(source.read_text())):
            if isinstance(call, ast.Call) and source.name not in own:
                made = ast.unparse(call.func).rsplit(".", 1)[-1]
                seeds = [*call.args, *(keyword.value for keyword in call.keywords if keyword.arg == "random_state")]
                draws = made in ("default_rng", "manual_seed", "Random", "RandomState") or len(seeds) > len(call.args)
                if draws and not any("mixed_int(" in ast.unparse(seed) for seed in seeds):
                    unnamed.append(f"{source}: {ast.unparse(call)}")
    assert not unnamed


def test_texts_are_words() -> None:
    assert word("gaussian_noise") != word("gaussian_blur")
    assert word("student1") == 22692303592513248, "in every process, on every machine"
    assert 0 <= word("ä") < 2**56
