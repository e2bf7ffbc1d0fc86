"""Folders for what does not fit into memory. They lie under ``.selftrain``, whose disk has room for the data's size."""

import contextlib
import os
import shutil
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

from selftrain.plumbing.errors import UserError, one_line
from selftrain.plumbing.locks import WORK
from selftrain.plumbing.room import refusal

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


@contextlib.contextmanager
def querying(folder: str) -> Iterator[None]:
    """While it lasts, a database spills to a folder: what it has no room for is a UserError."""
    import duckdb

    try:
        yield
    except (duckdb.IOException, duckdb.OutOfMemoryException) as error:
        said = refusal(error, Path(folder))
        raise said or UserError(
            f"{folder}: a query has no room ({one_line(error)}); make some and run it again"
        ) from None
