"""What every stage process does first: take its output's lock, and die with the DVC that started it.

A killed ``dvc repro`` leaves its stage's process behind, and the next one would start a second process on
the same output, and commit the mixture. So an output has one writer at a time.
"""

import contextlib
import ctypes
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from filelock import FileLock

WORK = Path(".selftrain")
"""Checkpoints, locks and scratch files: outside DVC's outputs, which DVC deletes before it runs a stage."""


@contextlib.contextmanager
def sole_writer(out: Path) -> Iterator[None]:
    """Hold an output's lock; wait, and say so, while another process writes it."""
    from filelock import Timeout

    if "DVC_STAGE" in os.environ:
        end_with_parent()
    lock = _lock_of(out)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        print(f"{out}: another process is still writing it; waiting for it to end", file=sys.stderr)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


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

    locks = WORK / "locks"
    locks.mkdir(parents=True, exist_ok=True)
    return FileLock(locks / f"{str(out).strip('/').replace('/', '--')}.lock")


def end_with_parent() -> None:
    """Ask Linux to send SIGTERM to this process when its parent dies; nothing elsewhere."""
    if not sys.platform.startswith("linux"):
        return
    parent_death_signal = 1  # PR_SET_PDEATHSIG
    parent = os.getppid()
    ctypes.CDLL(None).prctl(parent_death_signal, signal.SIGTERM)
    if os.getppid() != parent:  # it died before we asked
        raise SystemExit(128 + signal.SIGTERM)
