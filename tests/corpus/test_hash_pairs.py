from pathlib import Path

import numpy as np
import polars as pl
import pytest

from selftrain.corpus import hash_pairs as module
from selftrain.corpus.hash_pairs import MAX_DISTANCE, PairSearch, hash_pairs, masks
from selftrain.plumbing.engines import Here
from selftrain.tables.manifest import part_path


def write_hashes(folder: Path, upright: np.ndarray, mirrored: np.ndarray, sides: np.ndarray) -> None:
    """Manifest parts of three images each."""
    keys = np.arange(len(upright), dtype=np.int64)
    rows = pl.DataFrame(
        {
            "key": keys,
            "xxh3": keys * 10,
            "width": sides.astype(np.int32),
            "height": np.full(len(keys), 100, np.int32),
            "dhash": upright.view(np.int64),
            "dhash_mirrored": mirrored.view(np.int64),
        }
    )
    part_path(folder, 0).parent.mkdir(parents=True)
    for shard, start in enumerate(range(0, len(keys), 3)):
        rows[start : start + 3].write_parquet(part_path(folder, shard))


@pytest.mark.parametrize("memory", ["4GB", "60MB"])
def test_pairs_are_those_of_a_brute_force(tmp_path: Path, memory: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MEMORY_LIMIT", memory)
    (tmp_path / "it's elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "it's elsewhere")
    rng = np.random.default_rng(0)
    upright, mirrored = rng.integers(0, 2**64, (2, 150), dtype=np.uint64)
    for place in range(1, 150, 2):  # a neighbour in 0 to 6 bits, of the hash as it is or mirrored
        flipped = sum(1 << int(bit) for bit in rng.choice(64, rng.integers(0, 7), replace=False))
        upright[place] = (upright, mirrored)[place % 3 == 0][place - 1 if place % 3 else (place + 4) % 150] ^ np.uint64(
            flipped
        )
    upright[30], mirrored[30] = 1, 0  # blank
    upright[31] = 3
    sides = np.full(150, 40)
    sides[5] = 23
    left_out = {7, 8}
    write_hashes(tmp_path, upright, mirrored, sides)
    usable = [
        place for place in range(150) if place not in {5, 7, 8, 30} and (place != 31 or mirrored[31].bit_count() > 2)
    ]
    expected = [
        (one, other)
        for one in usable
        for other in usable
        if one < other
        and min(int(upright[one] ^ hashes[other]).bit_count() for hashes in (upright, mirrored)) <= MAX_DISTANCE
    ]
    found = hash_pairs(tmp_path, left_out, Here())
    assert len(expected) > 40
    assert found.select("key", "other_key").rows() == expected
    assert found["other_xxh3"].to_list() == [10 * other for _, other in expected]
    assert found["area"].to_list() == [int(sides[one]) * 100 for one, _ in expected]


def test_of_a_crowd_each_image_is_compared_with_its_neighbours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(module, "CROWD", 3)
    monkeypatch.chdir(tmp_path)
    upright = np.full(14, 2**40 - 1, np.uint64)
    upright[10:] = [2**32 - 1 << 32, 2**32 - 1 << 32, 2**20 - 1 << 40, 2**20 - 1 << 41]
    mirrored = np.array([2**13 - 1 << place for place in range(14)], np.uint64)
    write_hashes(tmp_path, upright, mirrored, np.full(14, 40))
    found = hash_pairs(tmp_path, set(), Here())
    crowd = [(one, other) for one in range(10) for other in range(one + 1, min(one + 4, 10))]
    assert found.select("key", "other_key").rows() == [*crowd, (10, 11), (12, 13)]
    assert "10 images look alike from afar, more than 3 at a time" in capsys.readouterr().out


def test_equal_hashes_are_a_pair_once_and_not_under_each_mask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    upright = np.full(60, 2**40 - 1, np.uint64)
    write_hashes(tmp_path, upright, np.full(60, 2**13 - 1, np.uint64), np.full(60, 40))
    search = PairSearch(tmp_path, np.empty(0, np.int64), alone=True)
    assert sum(len(search(mask)[0]) for mask in masks()) == 60 * 59 // 2


def test_masks_are_two_of_six_blocks_that_cover_all_bits() -> None:
    found = [mask & (2**64 - 1) for mask in masks()]
    assert len(set(found)) == 15
    assert all(20 <= mask.bit_count() <= 22 for mask in found)
    for bit in range(64):
        assert sum(mask >> bit & 1 for mask in found) == 5
