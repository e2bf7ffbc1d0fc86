"""Progress bars: on a terminal, after two seconds; silent elsewhere."""

import contextlib
import sys
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def progress_bar(description: str, total: int | None = None, done: int = 0) -> Iterator[Callable[..., None]]:
    """Show progress and yield ``advance(steps=1, **figures)``; the figures are shown beside the bar."""
    from tqdm import tqdm

    with tqdm(
        desc=description,
        total=total,
        initial=done,
        delay=2,
        disable=None,
        dynamic_ncols=True,
        leave=False,
        file=sys.stderr,
    ) as bar:

        def advance(steps: int = 1, **figures: object) -> None:
            if figures:
                bar.set_postfix(figures, refresh=False)
            bar.update(steps)

        yield advance
