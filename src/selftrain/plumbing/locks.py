"""An output has one writer at a time, and no readers while it is written.

A killed ``dvc repro`` may leave its stage's process behind. The next one would start a second process on the same
output, and commit the mixture.
"""

import contextlib
import fcntl
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from selftrain.plumbing.files import as_file_name

if TYPE_CHECKING:
    from filelock import FileLock

PROJECT = "params.yaml"
"""The file that lies in a project's folder."""
WORK = Path(".selftrain")
"""Checkpoints, locks and scratch files: outside DVC's outputs, which DVC deletes before it runs a stage."""


@contextlib.contextmanager
def sole_writer(out: Path) -> Iterator[None]:
    """Hold an output's lock; wait, and say so, while another process writes or reads it."""
    from filelock import Timeout

    lock = _lock_of(out)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        print(f"{out}: another process is still writing it; waiting for it to end", file=sys.stderr)
        lock.acquire()
    try:
        with _flock(out, fcntl.LOCK_EX, "another process is reading it; waiting for it to end"):
            yield
    finally:
        lock.release()


class Reading:
    """An output that is read as long as this object lives: its next writer waits."""

    def __init__(self, out: Path) -> None:
        """Wait, and say so, while the output is written."""
        self._held = contextlib.ExitStack()
        self._held.enter_context(_flock(out, fcntl.LOCK_SH, "it is being written; waiting for that to end"))


def has_writer(out: Path) -> bool:
    """Whether a process writes an output just now."""
    from filelock import Timeout

    try:
        with _lock_of(out).acquire(timeout=0):
            return False
    except Timeout:
        return True


def _lock_of(out: Path) -> "FileLock":
    from filelock import FileLock

    return FileLock(_path(out, "lock"))


@contextlib.contextmanager
def _flock(out: Path, kind: int, words: str) -> Iterator[None]:
    """Hold one of an output's two kinds of locks, shared by its readers or its writer's alone."""
    with _path(out, "readers").open("a") as file:
        try:
            fcntl.flock(file, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"{out}: {words}", file=sys.stderr)
            fcntl.flock(file, kind)
        yield


def _path(out: Path, kind: str) -> Path:
    """The same file however an output is spelled, and whatever folder a process works in: it lies in the project."""
    there = Path(os.path.abspath(out))
    root = next((parent for parent in there.parents if (parent / PROJECT).is_file()), Path.cwd())
    locks = root / WORK / "locks"
    locks.mkdir(parents=True, exist_ok=True)
    name = there.relative_to(root) if there.is_relative_to(root) else there
    return locks / f"{as_file_name(name)}.{kind}"
