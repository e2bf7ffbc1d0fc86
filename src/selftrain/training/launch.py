"""Processes of one stage, on this machine or on several: torchrun's agents.

The machine that runs the stage writes its launch into ``.selftrain/launch.json``, which all machines see. The others
run `selftrain follow`, which starts its part of each launch. The file is touched as long as its writer lives: one that
was killed leaves it behind, and nobody is to wait for that one. A process that a signal ends is started again with all
others, and they go on from the checkpoint.
"""

import contextlib
import json
import os
import signal
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import asdict, dataclass

from selftrain.plumbing.errors import UserError
from selftrain.plumbing.files import write_json
from selftrain.plumbing.hardware import HardwareConfig, processes
from selftrain.plumbing.locks import WORK
from selftrain.plumbing.processes import LAUNCH as OF_LAUNCH
from selftrain.plumbing.processes import failure_of

LAUNCH = WORK / "launch.json"
RESTARTS = 3
SHARED_STORE_OFF = "TORCH_DISABLE_SHARE_RDZV_TCP_STORE"
"""torchrun's variable; with ``1`` every try has a store of its own. In one that is shared, processes that start again
may find the addresses of those that died, since PyTorch does not tell tries apart there."""
LOOKS_EVERY = 0.5
"""Seconds."""


@dataclass(frozen=True)
class Launch:
    """What every machine starts its part of."""

    id: str
    nodes: str
    """How many machines, or the fewest and the most: ``2:4``."""
    rendezvous: str
    """Host and port of the machine that runs the stage."""
    command: list[str]


def in_processes(machine: HardwareConfig, command: list[str]) -> None:
    """Run a command of Python in processes of this machine, and of those that follow; SIGTERM reaches them.

    Raises SystemExit if one fails; it has said why.
    """
    launch = Launch(uuid.uuid4().hex, str(machine.nodes), machine.rendezvous or "", command)
    if machine.rendezvous is None:
        _torchrun(launch, processes(machine))
        return
    with _led(launch):
        _torchrun(launch, processes(machine))


@contextlib.contextmanager
def _led(launch: Launch) -> Iterator[None]:
    """Show a launch to the machines that follow, and that it is led."""
    ended = threading.Event()

    def touch() -> None:
        while not ended.wait(LOOKS_EVERY):
            with contextlib.suppress(FileNotFoundError):
                os.utime(LAUNCH)

    WORK.mkdir(exist_ok=True)
    write_json(LAUNCH, asdict(launch))
    touching = threading.Thread(target=touch, daemon=True)
    touching.start()
    try:
        yield
    finally:
        ended.set()
        touching.join()
        LAUNCH.unlink(missing_ok=True)


def follow(machine: HardwareConfig) -> None:
    """Start this machine's part of each launch, one after the other, until SIGTERM."""
    last, seen = "", ("", 0)
    while True:
        launch, touched = _launched()
        before, seen = seen, (launch.id if launch else "", touched)
        if launch is None or launch.id == last or before[0] != launch.id or before[1] == touched:
            time.sleep(LOOKS_EVERY)
            continue
        last = launch.id
        print(f"follows {' '.join(launch.command)}", flush=True)
        try:
            _torchrun(launch, processes(machine))
        except SystemExit as error:
            if isinstance(error.code, int) and error.code > 128:
                raise
            print(f"{' '.join(launch.command)} ended with {error.code}", flush=True)
        except UserError as error:  # nobody leads it any more
            print(f"{' '.join(launch.command)}: {error}", flush=True)


def _launched() -> tuple[Launch | None, int]:
    """The launch that a machine shows, if there is one, and when its file was touched."""
    try:
        # On NFS a file that is opened is asked for its times; one that is not may tell old ones.
        with LAUNCH.open(encoding="utf-8") as file:
            return Launch(**json.load(file)), os.fstat(file.fileno()).st_mtime_ns
    except (FileNotFoundError, ValueError, TypeError):
        return None, 0


def _torchrun(launch: Launch, count: int) -> None:
    from torch.distributed import run as torchrun
    from torch.distributed.elastic.multiprocessing import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.elastic.rendezvous.api import RendezvousError

    if launch.rendezvous:
        where = [f"--nnodes={launch.nodes}", "--rdzv-backend=c10d", f"--rdzv-endpoint={launch.rendezvous}"]
        where.append(f"--rdzv-id={launch.id}")
    else:
        where = ["--standalone"]
    arguments = [*where, f"--nproc-per-node={count}", f"--max-restarts={RESTARTS}", "--monitor-interval=0.5"]
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)}
    of_user = dict(os.environ)
    # Processes that start again see there whether the error was one that another try does not mend.
    os.environ |= {OF_LAUNCH: launch.id, SHARED_STORE_OFF: "1"}
    try:
        torchrun.run(torchrun.parse_args([*arguments, *launch.command]))  # type: ignore[no-untyped-call]
    except SignalException as error:
        raise SystemExit(128 + int(error.sigval)) from None
    except ChildFailedError as error:
        raise SystemExit(abs(error.get_first_failure()[1].exitcode) or 1) from None
    except RendezvousError as error:
        raise UserError(
            f"hardware.rendezvous: {launch.rendezvous} was not reached by {launch.nodes} machines ({error}); start "
            "`selftrain follow` on the others"
        ) from None
    finally:
        for number, handler in handlers.items():  # torchrun leaves its own
            signal.signal(number, handler)
        os.environ.clear()
        os.environ.update(of_user)
        failure_of(launch.id).unlink(missing_ok=True)


def wants_processes(machine: HardwareConfig) -> bool:
    """Whether this process is to start others, instead of working itself."""
    return "RANK" not in os.environ and (machine.rendezvous is not None or processes(machine) > 1)
