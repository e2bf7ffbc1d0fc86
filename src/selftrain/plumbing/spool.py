"""A run's curves on the disk, beside the checkpoints, until MLflow has them.

``curves.jsonl`` has a line a step: its number, its time and its values. So of a step there is all or nothing, and since
it has its time, MLflow knows a point that it is sent twice.
"""

import json
import os
from pathlib import Path

Point = tuple[str, float, int, int]
"""(name, value, milliseconds since 1970, step)."""
CURVES = "curves.jsonl"


class Spool:
    """The points of one run."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / CURVES
        text = self.path.read_bytes() if self.path.exists() else b""
        whole = text[: text.rfind(b"\n") + 1]
        if whole != text:  # a kill cut the last line short
            self.path.write_bytes(whole)
        self.points: list[Point] = []
        for line in whole.splitlines():
            self.points += _points(*json.loads(line))
        self.last_step = max((step for *_, step in self.points), default=-1)
        """Of those that an earlier process took."""

    def add(self, steps: dict[int, tuple[int, dict[str, float]]]) -> None:
        """Keep steps: by their number their time, in milliseconds since 1970, and their values.

        Raises OSError if the disk is full; nothing of them is kept then.
        """
        before = self.path.stat().st_size if self.path.exists() else 0
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.writelines(f"{json.dumps([step, *of_step])}\n" for step, of_step in steps.items())
        except OSError:
            os.truncate(self.path, before)
            raise
        for step, of_step in steps.items():
            self.points += _points(step, *of_step)


def _points(step: int, time: int, values: dict[str, float]) -> list[Point]:
    return [(name, value, time, step) for name, value in values.items()]
