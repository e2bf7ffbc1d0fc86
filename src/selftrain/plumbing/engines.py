"""Where units of work run: in this process, on this machine's cores, or on a Ray cluster.

A unit is what can be done whole and by itself: a shard to look at, a part of predictions, a part of a selection, a
condition of a suite. It writes its own output, atomically, and does nothing where that is there already. So any engine
will do, and a worker that dies costs its unit.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Protocol, TypeVar

if TYPE_CHECKING:
    from selftrain.plumbing.hardware import HardwareConfig

Unit = TypeVar("Unit")
Result = TypeVar("Result")


class Engine(Protocol):
    """What runs units."""

    shares_memory: bool
    """Whether units run in this process, so that what they are made of need not travel."""

    def share_of(self, machine: "HardwareConfig") -> "HardwareConfig":
        """The part of the machine that a worker has."""

    def done(
        self,
        make_work: Callable[[], Callable[[Unit], Result]],
        units: Iterable[Unit],
        name: Callable[[Unit], str],
        what: str,
    ) -> Iterator[tuple[Unit, Result]]:
        """Every unit with its result, as they are done.

        Each worker calls ``make_work`` once, and what it returns for each of its units. ``name`` is how errors call a
        unit, ``what`` how the engine's own pages call the work. Raises what the work raises, and UserError for units
        whose workers die again and again.
        """


class Here:
    """One unit after the other, in this process."""

    shares_memory = True

    def share_of(self, machine: "HardwareConfig") -> "HardwareConfig":
        """See ``Engine``."""
        return machine

    def done(
        self,
        make_work: Callable[[], Callable[[Unit], Result]],
        units: Iterable[Unit],
        name: Callable[[Unit], str],
        what: str,
    ) -> Iterator[tuple[Unit, Result]]:
        """See ``Engine``."""
        work: Callable[[Unit], Result] | None = None
        for unit in units:
            work = work or make_work()
            yield unit, work(unit)


def engine_of(machine: "HardwareConfig", local: Engine, *, on_gpu: bool = False) -> Engine:
    """The engine that ``hardware.engine`` names; ``local`` is a stage's own way without a cluster."""
    if machine.engine != "ray":
        return local
    from selftrain.plumbing.ray_engine import RayEngine

    return RayEngine(on_gpu and machine.device != "cpu")
