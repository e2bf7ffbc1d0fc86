"""Folders for what does not fit into memory. They lie under ``.selftrain``, whose disk has room for the data's size."""

import os
import shutil
import socket
import tempfile
from pathlib import Path

from selftrain.plumbing.locks import WORK

FOLDER = WORK / "spill"


def spill_folder() -> "tempfile.TemporaryDirectory[str]":
    """A new folder, removed when it is closed. What killed processes of this machine left behind is removed first."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    here = f"{socket.gethostname()}-"
    for left in FOLDER.iterdir():
        pid = left.name.removeprefix(here).partition("-")[0]
        if left.name.startswith(here) and Path("/proc/self").exists() and not Path("/proc", pid).exists():
            shutil.rmtree(left, ignore_errors=True)
    return tempfile.TemporaryDirectory(prefix=f"{here}{os.getpid()}-", dir=FOLDER)
