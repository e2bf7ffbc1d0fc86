"""The processes that work in a folder: a command's, wherever it and its launcher have put them."""

import os
from pathlib import Path


def living_in(folder: Path) -> list[int]:
    """Living processes whose working directory is the folder, those in sessions of their own too."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and os.readlink(entry / "cwd") == str(folder):
                state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
                found += [int(entry.name)] if state != "Z" else []
        except OSError:
            continue
    return found


def send(number: int, processes: list[int]) -> None:
    """Send a signal to all of them, as a scheduler does; one that has ended has no need of it."""
    for pid in processes:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            continue
