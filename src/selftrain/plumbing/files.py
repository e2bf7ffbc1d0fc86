"""Files and folders that are either whole or absent, whenever the process dies, and what identifies them."""

import contextlib
import hashlib
import json
import os
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from selftrain.plumbing.errors import UserError
from selftrain.plumbing.room import writing

TEMPORARY_PREFIX = ".tmp-"
HERE = hashlib.sha256(socket.gethostname().encode()).hexdigest()[:8]
"""This machine, in names of temporary files: machines that share a disk have processes of the same number."""
LONGEST_NAME = 200
"""Bytes; file systems take 255, and something may be added."""


@contextlib.contextmanager
def atomic_path(path: Path, *, durable: bool = True) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; on success it is flushed to disk and renamed to ``path``.

    Without ``durable`` it is not flushed: whole after a kill, but not after a power failure.

    Raises UserError, naming the file, if the disk is full or may not be written.
    """
    temporary = path.with_name(f"{TEMPORARY_PREFIX}{os.getpid()}.{HERE}-{path.name}")
    try:
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            yield temporary
            if durable:
                sync(temporary)
            temporary.replace(path)
            if durable:
                sync(path.parent)
    finally:
        if os.path.exists(temporary):
            temporary.unlink()


@contextlib.contextmanager
def atomic_folder(folder: Path) -> Iterator[Path]:
    """Yield the path of a folder that is to be made beside ``folder``; on success it takes that one's place.

    One process at a time may write it. Raises UserError, naming the folder, if the disk is full or may not be written.
    """
    staged = folder.with_name(f"{TEMPORARY_PREFIX}{folder.name}")
    try:
        with writing(folder):
            shutil.rmtree(staged, ignore_errors=True)
            folder.parent.mkdir(parents=True, exist_ok=True)
            yield staged
            shutil.rmtree(folder, ignore_errors=True)
            staged.rename(folder)
    finally:
        shutil.rmtree(staged, ignore_errors=True)


def writer_is_alive(temporary: Path) -> bool:
    """Whether the process that writes a temporary file is alive; of another machine's, nobody can tell, and it is."""
    pid, _, machine = temporary.name.removeprefix(TEMPORARY_PREFIX).partition("-")[0].partition(".")
    return machine != HERE or Path("/proc", pid).exists()


def remove_temporary_files(folder: Path) -> None:
    """Remove the files and folders that killed writers left in a folder, which has no other writer now."""
    for leftover in folder.glob(f"{TEMPORARY_PREFIX}*"):
        if leftover.is_dir():
            shutil.rmtree(leftover)
        else:
            leftover.unlink(missing_ok=True)


def sha256_of(path: Path) -> str:
    """The sha256 of a file, as hex; it may be larger than memory."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_json(path: Path, value: Any) -> None:
    """Write JSON atomically, readable and with a final newline."""
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def as_file_name(path: Path) -> str:
    """A path as the name of one file; of a very long one the end, and a hash of all of it."""
    name = str(path).strip("/").replace("/", "--")
    if len(os.fsencode(name)) <= LONGEST_NAME:
        return name
    return f"{hashlib.sha256(os.fsencode(name)).hexdigest()[:16]}-{name[-40:]}"


def read_json(path: Path, made_by: str) -> Any:
    """Read JSON; ``made_by`` names the stage to run when it is missing or damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(f"{path}: no such file; `{made_by}` makes it") from None
    except ValueError as error:
        raise UserError(f"{path}: not valid JSON ({error}); run `{made_by}` again") from None


def sync(path: Path) -> None:
    """Have a file, or the names in a folder, on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
