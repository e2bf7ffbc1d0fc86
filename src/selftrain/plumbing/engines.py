"""The engine that a stage's units of work run on."""

from collections.abc import Callable, Iterable, Iterator

from selftrain.plumbing.engine import Engine, MakeWork, Name, Result, Unit
from selftrain.plumbing.hardware import HardwareConfig, usable_cores
from selftrain.plumbing.process_engine import Processes

MOST_PROCESSES = 32


class Here:
    """One unit after the other, in this process."""

    shares_memory = True

    def share_of(self, machine: HardwareConfig) -> HardwareConfig:
        """See ``Engine``."""
        return machine

    def done(
        self, make_work: MakeWork[Unit, Result], units: Iterable[Unit], name: Name[Unit], what: str
    ) -> Iterator[tuple[Unit, Result]]:
        """See ``Engine``."""
        work: Callable[[Unit], Result] | None = None
        for unit in units:
            work = work or make_work()
            yield unit, work(unit)

    def in_order(
        self, make_work: MakeWork[Unit, Result], units: Iterable[Unit], name: Name[Unit], remedy: str
    ) -> Iterator[tuple[Unit, Result]]:
        """See ``Engine``."""
        return self.done(make_work, units, name, remedy)


def all_cores() -> Engine:
    """This machine's cores, a process each, for units whose results one process takes."""
    count = min(usable_cores(), MOST_PROCESSES)
    return Processes(count) if count > 1 else Here()


def engine_of(machine: HardwareConfig, local: Engine, *, on_gpu: bool = False) -> Engine:
    """The engine that ``hardware.engine`` names; ``local`` is a stage's own way without a cluster."""
    if machine.engine != "ray":
        return local
    from selftrain.plumbing.ray_engine import RayEngine

    return RayEngine(on_gpu and machine.device != "cpu")
