"""The processes that work in a folder: a command's, wherever it and its launcher have put them."""

import os
from pathlib import Path

import psutil


def living_in(folder: Path) -> list[int]:
    """Living processes whose working directory is the folder, those in sessions of their own too."""
    return [
        process.pid
        for process in psutil.process_iter(["cwd", "status"])
        if process.info["cwd"] == str(folder) and process.info["status"] != psutil.STATUS_ZOMBIE
    ]


def send(number: int, processes: list[int]) -> None:
    """Send a signal to all of them, as a scheduler does; one that has ended has no need of it."""
    for pid in processes:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            continue
