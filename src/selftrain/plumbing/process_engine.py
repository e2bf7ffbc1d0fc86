"""Units of work on the processes of this machine, each done whole by one of them, in any order."""

import contextlib
import multiprocessing
import sys
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from itertools import islice
from typing import Any

from selftrain.plumbing.engine import MakeWork, Name, Result, Unit, given_out
from selftrain.plumbing.errors import UserError
from selftrain.plumbing.hardware import HardwareConfig
from selftrain.plumbing.processes import starting_workers, worker

AHEAD, AHEAD_IN_ORDER = 2, 3
"""Units a process that are given out, so that none waits; in order, those that wait to be taken too."""
MOST_DEATHS = 3
"""Times that a unit is tried alone after a process died while it was under work."""


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
        numbered, suspects = iter(units), list[Unit]()
        while True:
            # One of those that were under work when a process died is at fault. Each is done alone, so that it shows.
            for unit in suspects:
                yield unit, self._alone(make_work, unit, name)
            suspects = []
            with self._pool(self.count, make_work) as pool:
                under_work = dict[Future[Result], Unit]()
                while not suspects:
                    for unit in islice(numbered, self.count * AHEAD - len(under_work)):
                        under_work[submitted(pool, _do, unit)] = unit
                    if not under_work:
                        return
                    for future in wait(under_work, return_when=FIRST_COMPLETED).done:
                        try:
                            result = future.result()
                        except BrokenProcessPool:
                            suspects = list(under_work.values())
                            break
                        yield under_work.pop(future), result

    def in_order(
        self, make_work: MakeWork[Unit, Result], units: Iterable[Unit], name: Name[Unit], remedy: str
    ) -> Iterator[tuple[Unit, Result]]:
        """See ``Engine``. Processes never run far ahead of who takes the results."""
        with self._pool(self.count, make_work) as pool:
            give, most = partial(submitted, pool, _do), self.count * AHEAD_IN_ORDER
            for unit, future in given_out(units, give, lambda: most):
                try:
                    result = future.result()
                except BrokenProcessPool:
                    raise UserError(
                        f"{name(unit)}: a process that worked on it died; memory may be short, so close other programs "
                        f"or {remedy}, and run it again"
                    ) from None
                yield unit, result

    def _alone(self, make_work: MakeWork[Unit, Result], unit: Unit, name: Name[Unit]) -> Result:
        for _ in range(MOST_DEATHS):
            with self._pool(1, make_work) as pool, contextlib.suppress(BrokenProcessPool):
                found: Result = submitted(pool, _do, unit).result()
                return found
        raise UserError(
            f"{name(unit)}: the processes that work on it die ({MOST_DEATHS + 1} times); memory may be short, so close "
            "other programs and run it again"
        )

    def _pool(self, count: int, make_work: MakeWork[Unit, Result]) -> ProcessPoolExecutor:
        # Forked processes share what is imported.
        context = multiprocessing.get_context("fork" if sys.platform.startswith("linux") else "spawn")
        return ProcessPoolExecutor(count, context, _begin, (make_work,))


def submitted(pool: ProcessPoolExecutor, function: Callable[[Any], Any], unit: Any) -> "Future[Any]":
    """A unit's result to come. Of a pool that is broken already it is that it is broken."""
    try:
        with starting_workers():
            return pool.submit(function, unit)
    except BrokenProcessPool as error:
        broken: Future[Any] = Future()
        broken.set_exception(error)
        return broken


_work: Callable[[Any], Any] | None = None
"""Of a worker process."""


def _begin(make_work: Callable[[], Callable[[Any], Any]]) -> None:
    global _work
    worker()
    _work = make_work()


def _do(unit: Any) -> Any:
    assert _work is not None
    return _work(unit)
