import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from selftrain.plumbing.locks import has_writer

HOLD = """
import sys
from pathlib import Path
from selftrain.plumbing.processes import begin
begin()
from selftrain.plumbing.locks import sole_writer
with sole_writer(Path("models/a")):
    print("in", flush=True)
    sys.stdin.read()
"""


def started(folder: Path, program: str, **environment: str) -> "subprocess.Popen[str]":
    """A process that holds what it holds until its input ends."""
    pipe = subprocess.PIPE
    return subprocess.Popen(
        [sys.executable, "-c", program],
        cwd=folder,
        stdin=pipe,
        stdout=pipe,
        stderr=pipe,
        text=True,
        env=os.environ | environment,
    )


def is_in(process: "subprocess.Popen[str]") -> bool:
    assert process.stdout is not None
    return process.stdout.readline() == "in\n"


def waits_and_says(second: "subprocess.Popen[str]", first: "subprocess.Popen[str]") -> str:
    """What the second says while it waits for the first, which then ends, as the second does."""
    assert second.stderr is not None
    said = second.stderr.readline()
    assert second.poll() is None, "it waits"
    assert first.communicate(timeout=120)[1] == ""
    assert is_in(second)
    second.communicate(timeout=120)
    assert (first.returncode, second.returncode) == (0, 0)
    return said


def test_one_writer_at_a_time_and_the_second_says_that_it_waits(tmp_path: Path) -> None:
    first = started(tmp_path, HOLD)
    assert is_in(first)
    assert "models/a: another process is still writing it" in waits_and_says(started(tmp_path, HOLD), first)


def test_an_output_has_one_lock_however_it_is_spelled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project = tmp_path / "project"
    project.mkdir()
    (project / "params.yaml").write_text("")
    with started(project, HOLD) as holder:
        assert is_in(holder)
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
import sys
from pathlib import Path
from selftrain.plumbing.locks import Reading
reading = Reading(Path("models/a"))
print("in", flush=True)
sys.stdin.read()
"""


def test_a_writer_waits_for_readers_and_readers_for_a_writer(tmp_path: Path) -> None:
    for one, other, message in (
        (READ, HOLD, "models/a: another process is reading it"),
        (HOLD, READ, "models/a: it is being written"),
    ):
        first = started(tmp_path, one)
        assert is_in(first)
        assert message in waits_and_says(started(tmp_path, other), first)
    first, second = started(tmp_path, READ), started(tmp_path, READ)
    assert is_in(first)
    assert is_in(second), "several may read"
    for process in (first, second):
        assert process.communicate(timeout=120)[1] == ""


def test_a_killed_writer_frees_the_output(tmp_path: Path) -> None:
    first = started(tmp_path, HOLD)
    assert is_in(first)
    first.kill()
    first.wait()
    second = started(tmp_path, HOLD)
    second.communicate(timeout=120)
    assert second.returncode == 0


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
