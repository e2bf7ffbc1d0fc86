"""Units of work on the processes of this machine, each done whole by one of them, in any order."""

import multiprocessing
import sys
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from itertools import chain, islice
from typing import Any

from selftrain.plumbing.engine import MakeWork, Name, Result, Unit
from selftrain.plumbing.errors import UserError
from selftrain.plumbing.hardware import HardwareConfig
from selftrain.plumbing.processes import starting_workers, worker

AHEAD = 2
"""Units a process that are given out, so that none waits."""
MOST_DEATHS = 3
"""Times that a unit may be under work when a process dies."""


class Processes:
    """Processes of this machine, forked: their work must not use polars, whose threads do not survive a fork."""

    shares_memory = False

    def __init__(self, count: int) -> None:
        self.count = count

    def share_of(self, machine: HardwareConfig) -> HardwareConfig:
        """See ``Engine``."""
        return machine.model_copy(update={"threads": 1, "workers": 0})

    def done(
        self, make_work: MakeWork[Unit, Result], units: Iterable[Unit], name: Name[Unit], what: str
    ) -> Iterator[tuple[Unit, Result]]:
        """See ``Engine``."""
        deaths: dict[int, int] = {}
        numbered = enumerate(units)
        again: list[tuple[int, Unit]] = []
        while True:
            # Forked processes share what is imported.
            context = multiprocessing.get_context("fork" if sys.platform.startswith("linux") else "spawn")
            with ProcessPoolExecutor(self.count, context, _begin, (make_work,)) as pool:
                todo, under_work = chain(again, numbered), dict[Future[Result], tuple[int, Unit]]()
                broken = False
                while not broken:
                    for number, unit in islice(todo, self.count * AHEAD - len(under_work)):
                        with starting_workers():
                            under_work[pool.submit(_do, unit)] = (number, unit)
                    if not under_work:
                        return
                    for future in wait(under_work, return_when=FIRST_COMPLETED).done:
                        try:
                            result = future.result()
                        except BrokenProcessPool:
                            broken = True
                            break
                        yield under_work.pop(future)[1], result
            again = list(under_work.values())
            for number, unit in again:
                deaths[number] = deaths.get(number, 0) + 1
                if deaths[number] > MOST_DEATHS:
                    raise UserError(
                        f"{name(unit)}: the processes that work on it die ({MOST_DEATHS + 1} times); memory may be "
                        "short, so close other programs and run it again"
                    )


_work: Callable[[Any], Any] | None = None
"""Of a worker process."""


def _begin(make_work: Callable[[], Callable[[Any], Any]]) -> None:
    global _work
    worker()
    _work = make_work()


def _do(unit: Any) -> Any:
    assert _work is not None
    return _work(unit)
