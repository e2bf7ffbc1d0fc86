"""Columns longer than memory."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from selftrain.images.index import load_index, load_splits
from selftrain.plumbing import columns
from selftrain.plumbing.columns import Column, taken


@pytest.fixture
def on_disk(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(columns, "IN_MEMORY", 100)


@pytest.mark.usefixtures("on_disk")
@pytest.mark.parametrize("width", [None, 3])
def test_rows_come_back_in_order(width: int | None) -> None:
    rng = np.random.default_rng(0)
    column: Column[np.float16] = Column(np.float16, width)
    shapes = [(count,) if width is None else (count, width) for count in (0, 3, 1, 40, 0, 7)]
    parts = [rng.random(shape) for shape in shapes]
    for part in parts:
        column.append(part)
    array = column.array()
    assert isinstance(array, np.memmap)
    assert np.array_equal(array, np.concatenate(parts).astype(np.float16))
    assert not list(Path(".selftrain").iterdir()), "the file has no name"


def test_small_ones_are_arrays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    column: Column[np.int32] = Column(np.int32)
    assert column.array().shape == (0,)
    column.append(np.arange(5))
    assert column.array().tolist() == [0, 1, 2, 3, 4]
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("on_disk")
def test_taken_is_indexing() -> None:
    column = np.arange(1000, dtype=np.int64) * 7
    mask = np.random.default_rng(0).random(1000) < 0.3
    assert np.array_equal(taken(column, mask, at_once=33), column[mask])
    rows = np.random.default_rng(1).integers(0, 1000, 500)
    assert np.array_equal(taken(column, rows, at_once=33), column[rows])


def test_an_index_on_the_disk_is_the_same(digits_corpus: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    mask = np.random.default_rng(0).random(len(load_index(digits_corpus / "unlabeled"))) < 0.5
    found = []
    for limit in (2**30, 100):
        monkeypatch.setattr(columns, "IN_MEMORY", limit)
        whole, both = load_index(digits_corpus / "unlabeled"), load_splits(digits_corpus, ["test", "labeled"])
        assert isinstance(whole.keys, np.memmap) == (limit == 100)
        for index in (whole, both, whole.take(mask)):
            found.append(
                [index.shards, *(getattr(index, name).tolist() for name in ("keys", "offset", "xxh3", "labels"))]
            )
    assert found[:3] == found[3:]


def test_a_full_column_takes_no_memory(tmp_path: Path) -> None:
    """Four columns of 256 MiB in a process that may have 300 MiB more than it started with."""
    program = """
import resource, numpy as np
from selftrain.plumbing.columns import Column
used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
columns = [Column(np.int64) for _ in range(4)]
for start in range(0, 2**25, 2**20):
    for column in columns:
        column.append(np.arange(start, start + 2**20))
arrays = [column.array() for column in columns]
assert all(len(array) == 2**25 for array in arrays)
# Mapped pages count as resident once they are read, so few are.
assert arrays[3][2**24 + 5] == 2**24 + 5
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - used)
"""
    ended = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert int(ended.stdout) < 300 * 2**20
