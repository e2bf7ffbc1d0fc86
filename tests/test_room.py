"""Disks that are full or closed: said before hours are spent, or in one line, and what was there stays whole."""

import errno
import json
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest
import torch

from selftrain.plumbing.errors import UserError
from selftrain.plumbing.files import write_json
from selftrain.plumbing.room import check_room, refusal
from selftrain.tables.parquet import write_frame
from selftrain.training.checkpoint import load_checkpoint, save_checkpoint
from tests.training.project import TRAIN_STUDENT, selftrain, write_project


def mounted(folder: Path, size: str, read_only: bool = False) -> bool:
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}" + ",ro" * read_only, "tmpfs", str(folder)]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of a mebibyte, where the system lets us make one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if not mounted(folder, "1m"):
        pytest.skip("no right to mount a disk")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=False)


def test_what_is_written_is_whole_or_named_and_the_old_stays(small_disk: Path) -> None:
    noise = list(os.urandom(2**18))
    writers = {
        "table.parquet": lambda path, big: write_frame(pl.DataFrame({"a": noise * 8 if big else [1]}), path),
        "values.json": lambda path, big: write_json(path, noise * 2 if big else [1]),
    }
    for name, write in writers.items():
        path = small_disk / name
        write(path, False)
        before = path.read_bytes()
        with pytest.raises(UserError, match=rf"{name}: No space left on device; [\d.]+ MiB free on its disk"):
            write(path, True)
        assert path.read_bytes() == before
        assert [entry.name for entry in small_disk.iterdir()] == [name]
        path.unlink()


def test_a_checkpoint_that_finds_no_room_leaves_the_one_before(small_disk: Path) -> None:
    save_checkpoint(small_disk, 1, {"weights": torch.arange(1000)})
    with pytest.raises(UserError, match=r"step-0000000002.safetensors: No space left on device"):
        save_checkpoint(small_disk, 2, {"weights": torch.rand(10**6)})
    state = load_checkpoint(small_disk)
    assert state is not None
    assert torch.equal(state["weights"], torch.arange(1000))
    assert [path.name for path in small_disk.iterdir()] == ["step-0000000001.safetensors"]


def test_the_largest_file_that_is_allowed_is_a_line_too(tmp_path: Path) -> None:
    """A quota is the same to a program; this limit needs no right."""
    program = f"from selftrain.plumbing.files import write_json; write_json(__import__('pathlib').Path({str(tmp_path / 'f')!r}), [0] * 10**5)"
    ended = subprocess.run(
        [sys.executable, "-c", program],
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (2**16, 2**16)),
        capture_output=True,
        text=True,
        check=False,
    )
    assert "UserError" in ended.stderr
    assert "f: File too large" in ended.stderr
    assert list(tmp_path.iterdir()) == []


def test_room_is_looked_for_before(small_disk: Path) -> None:
    check_room(small_disk / "new", 2**19, "models")
    with pytest.raises(UserError, match=r"disk: models need 2\.0 MiB, and its disk has 1\.0 MiB free; make room"):
        check_room(small_disk, 2**21, "models")
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with pytest.raises(UserError, match=r"disk: cannot be written \(Read-only file system\)"):
        check_room(small_disk, 0, "models")
    with pytest.raises(UserError, match=r"a\.json: cannot be written \(Read-only file system\)"):
        write_json(small_disk / "a.json", 1)


def test_a_training_without_room_for_its_checkpoints_does_not_begin(
    digits_corpus: Path, tmp_path: Path, small_disk: Path
) -> None:
    folder = tmp_path / "p"
    write_project(folder, digits_corpus)
    shutil.rmtree(folder / ".selftrain", ignore_errors=True)
    (folder / ".selftrain").symlink_to(small_disk)
    ended = selftrain(folder, *TRAIN_STUDENT)
    assert ended.returncode == 1
    assert "2 checkpoints of student and a third need" in ended.stderr.replace("\n", " ")
    assert "Traceback" not in ended.stderr
    assert not (folder / "models" / "noisy_student" / "student").exists()


def test_an_ingest_that_finds_no_room_leaves_no_half_shard(photos: Path, small_disk: Path, tmp_path: Path) -> None:
    for number, path in enumerate(sorted((photos / "pool").iterdir())):
        data = path.read_bytes()
        path.write_bytes(data + bytes([number]) * 2**18)  # what stands after an image's end is kept
    params = {"ingest": {"root": str(photos), "labeled": {"images": "labeled"}, "unlabeled": {"images": "pool"}}}
    params["ingest"] |= {"validation": {"images": "validation"}, "test": {"images": "test"}}
    program = (
        "import json, sys; from pathlib import Path; from selftrain.corpus.ingest import ingest;"
        "from selftrain.params.ingest import IngestConfig;"
        "ingest(IngestConfig.model_validate(json.loads(sys.argv[1])), 0, Path(sys.argv[2]))"
    )
    command = [sys.executable, "-c", program, json.dumps(params["ingest"]), str(small_disk / "corpus")]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert "UserError" in ended.stderr
    assert "shard-00000000.tar: No space left on device" in ended.stderr
    assert list((small_disk / "corpus" / "unlabeled").glob("*.tar")) == []


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (OSError(errno.ENOSPC, "x"), "No space left on device"),
        (OSError(errno.EDQUOT, "x"), "Disk quota exceeded"),
        (RuntimeError("I/O error: No space left on device (os error 28)"), "No space left on device"),
        (OSError(errno.EROFS, "x"), "Read-only file system"),
        (PermissionError(errno.EACCES, "x"), "Permission denied"),
        (FileNotFoundError(errno.ENOENT, "x"), None),
        (ValueError("x"), None),
    ],
)
def test_what_the_disk_refuses_is_told_from_other_errors(
    error: Exception, expected: str | None, tmp_path: Path
) -> None:
    said = refusal(error, tmp_path / "not" / "there")
    assert (said is None) == (expected is None)
    assert expected is None or expected in str(said)
