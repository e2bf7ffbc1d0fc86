"""Where units of work run: in this process, on this machine's cores, or on a Ray cluster.

A unit is what can be done whole and by itself: a shard to look at, a part of predictions, a part of a selection, a
condition of a suite. It writes its own output, atomically, and does nothing where that is there already. So any engine
will do, and a worker that dies costs its unit.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Protocol, TypeVar

from selftrain.plumbing.hardware import HardwareConfig

Unit = TypeVar("Unit")
Result = TypeVar("Result")
MakeWork = Callable[[], Callable[[Unit], Result]]
"""Called once in each worker. It returns the function that does one unit."""
Name = Callable[[Unit], str]
"""How errors call a unit."""


Ticket = TypeVar("Ticket")
"""What a unit's result is taken with, once it is there."""


def given_out(
    units: Iterable[Unit], give: Callable[[Unit], Ticket], most: Callable[[], int]
) -> Iterator[tuple[Unit, Ticket]]:
    """Every unit with its ticket, in order, with never more than ``most`` (at least 1) given out and not taken."""
    given, under_work = iter(units), deque[tuple[Unit, Ticket]]()
    while True:
        for unit in islice(given, max(0, most() - len(under_work))):
            under_work.append((unit, give(unit)))
        if not under_work:
            return
        yield under_work.popleft()


class Engine(Protocol):
    """What runs units."""

    shares_memory: bool
    """Whether units run in this process, so that what they are made of need not travel."""

    def share_of(self, machine: HardwareConfig) -> HardwareConfig:
        """The part of the machine that a worker has."""

    def done(
        self, make_work: MakeWork[Unit, Result], units: Iterable[Unit], name: Name[Unit], what: str
    ) -> Iterator[tuple[Unit, Result]]:
        """Every unit with its result, as they are done.

        ``what`` is how errors call the work. Raises what the work raises, and UserError for units whose workers die
        again and again.
        """

    def in_order(
        self, make_work: MakeWork[Unit, Result], units: Iterable[Unit], name: Name[Unit], remedy: str
    ) -> Iterator[tuple[Unit, Result]]:
        """The same in the order of the units, which are taken as they are needed: for those that are small and many.

        ``remedy`` is what helps where memory is short.
        """
