"""Points of curves on the disk, beside the checkpoints, until MLflow has them.

``points.jsonl`` has a line a point, ``points.sent`` how many of them were stored. A point has its time, so that MLflow
knows one that it is sent twice.
"""

import json
from pathlib import Path

from selftrain.plumbing.files import atomic_path

Point = tuple[str, float, int, int]
"""(name, value, milliseconds since 1970, step)."""
POINTS = "points.jsonl"


class Spool:
    """The points of one run."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.path, self._sent = folder / POINTS, folder / "points.sent"
        text = self.path.read_bytes() if self.path.exists() else b""
        whole = text[: text.rfind(b"\n") + 1]
        if whole != text:  # a kill cut the last line short
            self.path.write_bytes(whole)
        self._points: list[Point] = [tuple(json.loads(line)) for line in whole.splitlines()]
        self.last_step = max((step for *_, step in self._points), default=-1)
        """Of the points that an earlier process took."""

    def add(self, points: list[Point]) -> None:
        """Keep points. Raises OSError if the disk is full."""
        with self.path.open("a", encoding="utf-8") as file:
            file.writelines(f"{json.dumps(point)}\n" for point in points)
        self._points += points

    def unsent(self) -> list[Point]:
        """The points that MLflow does not have yet."""
        return self._points[self._count() :]

    def mark_sent(self, points: int) -> None:
        """So many more were stored."""
        self._write(self._count() + points)

    def forget_sent(self) -> None:
        """A new run has none of them."""
        self._write(0)

    def _count(self) -> int:
        return int(self._sent.read_text()) if self._sent.exists() else 0

    def _write(self, count: int) -> None:
        with atomic_path(self._sent, durable=False) as temporary:
            temporary.write_text(str(count))
