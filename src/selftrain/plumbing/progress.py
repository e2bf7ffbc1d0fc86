"""Progress: a bar on a terminal, after two seconds; elsewhere, as in a job's log, a line a minute."""

import contextlib
import sys
import time
from collections.abc import Callable, Iterator

LINE_EVERY = 60.0
"""Seconds."""


@contextlib.contextmanager
def progress_bar(description: str, total: int | None = None, done: int = 0) -> Iterator[Callable[..., None]]:
    """Show progress and yield ``advance(steps=1, **figures)``; the figures are shown beside it."""
    if not sys.stderr.isatty():
        yield _Lines(description, total, done).advance
        return
    from tqdm import tqdm

    with tqdm(
        desc=description,
        total=total,
        initial=done,
        delay=2,
        dynamic_ncols=True,
        leave=False,
        file=sys.stderr,
    ) as bar:

        def advance(steps: int = 1, **figures: object) -> None:
            if figures:
                bar.set_postfix(figures, refresh=False)
            bar.update(steps)

        yield advance


class _Lines:
    """Says how far it is, once a minute at most."""

    def __init__(self, description: str, total: int | None, done: int) -> None:
        self.description, self.total, self.done = description, total, done
        self.figures: dict[str, object] = {}
        self.said = time.monotonic()

    def advance(self, steps: int = 1, **figures: object) -> None:
        self.done += steps
        self.figures |= figures
        if time.monotonic() >= self.said + LINE_EVERY:
            self.said = time.monotonic()
            of_total = f" of {self.total:,}" if self.total is not None else ""
            beside = "".join(f", {name} {value}" for name, value in self.figures.items())
            print(f"{self.description}: {self.done:,}{of_total}{beside}", file=sys.stderr, flush=True)
