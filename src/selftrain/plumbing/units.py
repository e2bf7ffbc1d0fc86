"""Units of work on the processes of this machine, each done whole by one of them, in any order."""

import multiprocessing
import sys
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from itertools import chain, islice
from typing import Any, TypeVar

from selftrain.plumbing.errors import UserError
from selftrain.plumbing.processes import starting_workers, worker

Unit = TypeVar("Unit")
Result = TypeVar("Result")

AHEAD = 2
"""Units a process that are given out, so that none waits."""
MOST_DEATHS = 3
"""Times that a unit may be under work when a process dies."""


def done_units(
    make_work: Callable[[], Callable[[Unit], Result]],
    units: Iterable[Unit],
    processes: int,
    name: Callable[[Unit], str],
) -> Iterator[tuple[Unit, Result]]:
    """Every unit with its result, as they are done.

    Each process calls ``make_work`` once, and what it returns for each unit. A process that dies costs its unit, which
    another one does again; so a unit's work has to be the same however often it is begun. Raises what the work raises,
    and UserError, with the unit's ``name``, for units whose processes die again and again.
    """
    waiting, deaths = iter(units), dict[int, int]()
    again: list[tuple[int, Unit]] = []
    numbered = enumerate(waiting)
    while True:
        # Forked processes share what is imported.
        context = multiprocessing.get_context("fork" if sys.platform.startswith("linux") else "spawn")
        with ProcessPoolExecutor(processes, context, _begin, (make_work,)) as pool:
            under_work: dict[Future[Result], tuple[int, Unit]] = {}
            todo, again = chain(again, numbered), []
            broken = False
            while not broken:
                for number, unit in islice(todo, processes * AHEAD - len(under_work)):
                    with starting_workers():
                        under_work[pool.submit(_do, unit)] = (number, unit)
                if not under_work:
                    return
                done, _ = wait(under_work, return_when=FIRST_COMPLETED)
                for future in done:
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
                    f"{name(unit)}: the processes that work on it die ({MOST_DEATHS + 1} times); memory may be short, "
                    "so close other programs and run it again"
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
