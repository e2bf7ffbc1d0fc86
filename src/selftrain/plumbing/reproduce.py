"""`dvc repro` that a scheduler may end: the stage that runs saves and ends first, and DVC after it.

SIGTERM ends DVC at once. A container or a job ends with it, while the stage is still saving its checkpoint.
"""

import contextlib
import signal
import sys

import psutil

from selftrain.plumbing.processes import TERMINATED, stoppable

SECONDS = 0.5
"""Between two looks at what DVC runs."""


def reproduce(arguments: list[str]) -> int:
    """Run `dvc repro` with its arguments; return its exit status, or 143 if SIGTERM came.

    After SIGTERM each stage that runs is told once. A stage that fails ends DVC, and DVC frees its locks. Where a
    scheduler tells all processes, DVC is gone before its stage, which is waited for.
    """
    with stoppable() as stop:
        dvc = psutil.Popen([sys.executable, "-m", "dvc", "repro", *arguments])
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches DVC and its stage too
        told: list[psutil.Process] = []
        below: list[psutil.Process] = []
        while dvc.poll() is None:
            with contextlib.suppress(psutil.TimeoutExpired):
                dvc.wait(SECONDS)
            with contextlib.suppress(psutil.NoSuchProcess):
                below = dvc.children(recursive=True) or below
                for stage in dvc.children() if stop.requested else []:
                    if stage not in told:
                        told.append(stage)
                        stage.terminate()
        if stop.requested:
            psutil.wait_procs(below)
        signal.signal(signal.SIGINT, before)
    if stop.requested:
        return TERMINATED
    status = int(dvc.returncode)
    return status if status >= 0 else 128 - status
