import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from selftrain.plumbing.locks import has_writer

HOLD = """
import sys, time
from pathlib import Path
from selftrain.plumbing.processes import begin
begin()
from selftrain.plumbing.locks import sole_writer
with sole_writer(Path("models/a")):
    print("in", flush=True)
    time.sleep(float(sys.argv[1]))
"""


def hold(folder: Path, seconds: float, **environment: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", HOLD, str(seconds)],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | environment,
    )


def test_one_writer_at_a_time_and_the_second_says_that_it_waits(tmp_path: Path) -> None:
    first = hold(tmp_path, 2)
    assert first.stdout is not None
    assert first.stdout.readline() == "in\n"
    began = time.monotonic()
    second = hold(tmp_path, 0)
    _, errors = second.communicate()
    assert time.monotonic() - began > 1
    assert "models/a: another process is still writing it" in errors
    assert first.wait() == 0


def test_an_output_has_one_lock_however_it_is_spelled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project = tmp_path / "project"
    project.mkdir()
    (project / "params.yaml").write_text("")
    with hold(project, 5) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "in\n"
        for folder, path in (
            (project, "models/a"),
            (tmp_path, "project/x/../models/a"),
            (tmp_path, project / "models/a"),
        ):
            monkeypatch.chdir(folder)
            assert has_writer(Path(path)), path
        assert not has_writer(project / "models" / "b")
        holder.kill()


READ = """
import sys, time
from pathlib import Path
from selftrain.plumbing.locks import Reading
reading = Reading(Path("models/a"))
print("in", flush=True)
time.sleep(float(sys.argv[1]))
"""


def test_a_writer_waits_for_readers_and_readers_for_a_writer(tmp_path: Path) -> None:
    def read(seconds: float) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [sys.executable, "-c", READ, str(seconds)], cwd=tmp_path, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    for begin, second, message in (
        (lambda: read(2), lambda: hold(tmp_path, 0), "models/a: another process is reading it"),
        (lambda: hold(tmp_path, 2), lambda: read(0), "models/a: it is being written"),
    ):
        first = begin()
        assert first.stdout is not None
        assert first.stdout.readline() == "in\n"
        _, errors = second().communicate(timeout=120)
        assert message in errors
        assert first.wait() == 0
    first = read(2)
    assert first.stdout is not None
    assert first.stdout.readline() == "in\n"
    second = read(0)
    _, errors = second.communicate(timeout=120)
    assert errors == "", "several may read"
    assert first.wait() == 0


def test_a_killed_writer_frees_the_output(tmp_path: Path) -> None:
    first = hold(tmp_path, 60)
    assert first.stdout is not None
    first.stdout.readline()
    first.kill()
    first.wait()
    assert hold(tmp_path, 0).wait(timeout=10) == 0


def test_a_stage_ends_with_the_dvc_that_started_it(tmp_path: Path) -> None:
    parent_program = (
        "import subprocess, sys, time\n"
        f"child = subprocess.Popen([sys.executable, '-c', {HOLD!r}, '60'], stdout=subprocess.PIPE, text=True)\n"
        "child.stdout.readline(); print(child.pid, flush=True); time.sleep(60)"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", parent_program],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"DVC_STAGE": "train@a"},
    )
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    parent.kill()
    parent.wait()
    deadline = time.monotonic() + 10
    while _runs(child) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not _runs(child)


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
