import errno
import hashlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from selftrain.plumbing.errors import UserError
from selftrain.plumbing.files import (
    HERE,
    atomic_folder,
    atomic_path,
    read_json,
    remove_temporary_files,
    sha256_of,
    write_json,
    writer_is_alive,
)


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_json(path, {"é": 1})
    with pytest.raises(RuntimeError), atomic_path(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert read_json(path, "x") == {"é": 1}
    assert os.listdir(tmp_path) == ["a.json"]


def test_a_killed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    program = (
        "import os, signal; from pathlib import Path; from selftrain.plumbing.files import atomic_path\n"
        f"with atomic_path(Path({str(path)!r})) as t:\n"
        "    t.write_text('half'); os.kill(os.getpid(), signal.SIGKILL)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == -signal.SIGKILL
    assert path.read_text() == "old"
    remove_temporary_files(tmp_path)
    assert os.listdir(tmp_path) == ["a.txt"]


def test_a_writer_of_another_machine_is_never_called_dead(tmp_path: Path) -> None:
    with atomic_path(tmp_path / "a") as temporary:
        temporary.touch()
        assert writer_is_alive(temporary)
        dead = temporary.with_name(temporary.name.replace(f"{os.getpid()}.", "4194305.", 1))
        assert not writer_is_alive(dead)
        assert writer_is_alive(dead.with_name(dead.name.replace(HERE, "elsewhere")))


def test_a_folder_is_the_old_one_or_the_new_one_whole(tmp_path: Path) -> None:
    folder = tmp_path / "out" / "model"
    program = (
        "import os, signal; from pathlib import Path; from selftrain.plumbing.files import atomic_folder\n"
        f"with atomic_folder(Path({str(folder)!r})) as t:\n"
        "    t.mkdir(); (t / 'half').touch(); os.kill(os.getpid(), signal.SIGKILL)"
    )
    for content in ("first", "second"):
        before = [path.read_text() for path in folder.glob("*")]
        assert subprocess.run([sys.executable, "-c", program], check=False).returncode == -signal.SIGKILL
        with pytest.raises(RuntimeError), atomic_folder(folder) as made:
            made.mkdir()
            raise RuntimeError
        assert [path.read_text() for path in folder.glob("*")] == before
        with atomic_folder(folder) as made:
            made.mkdir()
            (made / content).write_text(content)
        assert {path.name: path.read_text() for path in folder.iterdir()} == {content: content}
        assert os.listdir(folder.parent) == ["model"]


def test_a_folder_that_may_not_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="model: No space left on device"), atomic_folder(tmp_path / "model"):
        raise OSError(errno.ENOSPC, "full")


def test_missing_and_damaged_json_name_the_stage_to_run(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="`dvc repro x` makes it"):
        read_json(tmp_path / "a.json", "dvc repro x")
    (tmp_path / "a.json").write_text("{")
    with pytest.raises(UserError, match="not valid JSON"):
        read_json(tmp_path / "a.json", "dvc repro x")


def test_a_files_sha256_is_that_of_its_bytes(tmp_path: Path) -> None:
    content = bytes(range(256)) * 5000
    (tmp_path / "a").write_bytes(content)
    assert sha256_of(tmp_path / "a") == hashlib.sha256(content).hexdigest()
