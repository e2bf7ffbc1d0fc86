"""How a process ends: by SIGTERM with its clean-up done, and together with the process that started it."""

import contextlib
import ctypes
import json
import os
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

from selftrain.plumbing.dvc_lock import RWLOCK
from selftrain.plumbing.errors import one_line
from selftrain.plumbing.locks import WORK

FAILURES = WORK / "failures"
LAUNCH = "SELFTRAIN_LAUNCH"
"""The variable with the id of the launch that a process of several belongs to."""
TERMINATED = 128 + signal.SIGTERM
"""What a process that SIGTERM ended leaves as its exit code."""
PARENT_DEATH_SIGNAL = 1
"""PR_SET_PDEATHSIG, of Linux."""


def begin() -> None:
    """What a command does first, before imports that take seconds.

    SIGTERM ends it like an error, so that files are closed and runs are marked. A stage ends with its DVC, which may be
    gone already.
    """
    signal.signal(signal.SIGTERM, _leave)
    if "DVC_STAGE" in os.environ or "RANK" in os.environ:
        end_with_parent()
    launch, restarts = os.environ.get(LAUNCH), int(os.environ.get("TORCHELASTIC_RESTART_COUNT", 0))
    if launch and restarts and failure_of(launch).exists():
        raise SystemExit(1)
    if "DVC_STAGE" in os.environ and _dvc_is_gone(Path(os.environ.get("DVC_ROOT", "."))):
        raise SystemExit(TERMINATED)


def failure_of(launch: str) -> Path:
    """The file that says that a launch of several processes failed by an error that another try does not mend."""
    return FAILURES / launch


def mark_failure() -> None:
    """Tell torchrun's next try that this one failed by an error that the user has to mend."""
    if launch := os.environ.get(LAUNCH):
        FAILURES.mkdir(parents=True, exist_ok=True)
        failure_of(launch).touch()


def end_with_parent(by: int = signal.SIGTERM) -> None:
    """Ask Linux for a signal to this process when its parent dies; nothing elsewhere."""
    if not sys.platform.startswith("linux"):
        return
    parent = os.getppid()
    ctypes.CDLL(None).prctl(PARENT_DEATH_SIGNAL, by)
    if os.getppid() != parent:  # it died before we asked
        raise SystemExit(TERMINATED)


@contextlib.contextmanager
def starting_workers() -> Iterator[None]:
    """While it lasts, SIGTERM waits: processes that are forked meanwhile get it when they are a ``worker``."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def worker() -> None:
    """What a worker process does first: obey SIGTERM from the process that started it alone, and end with that.

    A scheduler sends SIGTERM to all processes of a job; the main one needs its workers until it has saved.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    end_with_parent(signal.SIGKILL)
    threading.Thread(target=_end_when_told, args=(os.getppid(),), daemon=True).start()


def _end_when_told(parent: int) -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != parent:
        pass
    os._exit(0)


def death_of_worker(error: RuntimeError) -> str | None:
    """What to tell a user if an error is PyTorch's about a worker that died; None if it is another.

    PyTorch raises it in the main thread at any moment: when a worker was killed, or had no shared memory.
    """
    reason = one_line(error)
    if "DataLoader worker" not in reason:
        return None
    return f"a loader process died ({reason}); memory or shared memory may be short: {_MORE_MEMORY}"


def no_shared_memory(reason: str) -> str:
    """What to tell a user if a loader process finds no shared memory for a batch."""
    return f"a loader process has no shared memory for a batch ({' '.join(reason.split())[:200]}): {_MORE_MEMORY}"


_MORE_MEMORY = "set `hardware.workers` to fewer or 0, or give a container more by `--shm-size=2g`"


class Stop:
    """Whether somebody asked for an end."""

    requested = False


@contextlib.contextmanager
def stoppable() -> Iterator[Stop]:
    """While it lasts, SIGTERM asks for an end, at a moment that suits, instead of ending the process at once."""
    stop = Stop()

    def request(number: int, frame: object) -> None:
        stop.requested = True

    before = signal.signal(signal.SIGTERM, request)
    try:
        yield stop
    finally:
        signal.signal(signal.SIGTERM, before)


def _leave(number: int, frame: object) -> None:
    raise SystemExit(TERMINATED)


def _dvc_is_gone(root: Path) -> bool:
    """Whether no process that DVC's lock file names is alive: it names the DVC that runs a stage."""
    try:
        locks = json.loads((root / RWLOCK).read_text(encoding="utf-8"))
        held = [entry for lock in locks.values() for entry in [*lock.get("read", []), lock.get("write", {})]]
        pids = {int(entry["pid"]) for entry in held if "pid" in entry}
    except (OSError, ValueError, AttributeError, TypeError):
        return False
    return bool(pids) and not any(Path(f"/proc/{pid}").exists() for pid in pids) and Path("/proc/self").exists()
