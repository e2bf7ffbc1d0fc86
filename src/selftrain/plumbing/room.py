"""Room on the disk: looked for before hours are spent, and named where it ends."""

import contextlib
import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from selftrain.plumbing.errors import UserError

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""A full disk, a user's quota, the largest file that is allowed."""
CLOSED = (errno.EROFS, errno.EACCES, errno.EPERM)
"""What may not be written."""


def check_room(folder: Path, needed: int, what: str) -> None:
    """Raises UserError if a folder cannot be written, or if its disk has fewer free bytes than are ``needed``."""
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise UserError(f"{folder}: {what} need {in_mib(needed)}, and its disk has {in_mib(free)} free; make room")


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """While it lasts, a file is written: what the disk refuses is a UserError that names the file."""
    try:
        yield
    except UserError:
        raise
    # Rust's and Arrow's writers raise errors of their own, which hold the system's.
    except Exception as error:
        if (said := refusal(error, path)) is None:
            raise
        raise said from None


def refusal(error: Exception, path: Path) -> UserError | None:
    """What to tell a user if an error is a disk's that is full or closed; None if it is another."""
    code = _errno(error)
    if code in FULL:
        return UserError(f"{path}: {os.strerror(code)}; {_free(path)} free on its disk. Make room and run it again")
    if code in CLOSED:
        return UserError(f"{path}: cannot be written ({os.strerror(code)}); allow it, or work in another folder")
    return None


def in_mib(count: int) -> str:
    """Bytes as text."""
    return f"{count / 2**20:,.1f} MiB"


def _errno(error: Exception) -> int:
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno
    text = str(error)
    found = [code for code in (*FULL, *CLOSED) if os.strerror(code) in text or f"os error {code})" in text]
    return found[0] if found else 0


def _free(path: Path) -> str:
    there = next(parent for parent in (path, *path.absolute().parents) if parent.exists())
    return in_mib(shutil.disk_usage(there).free)
