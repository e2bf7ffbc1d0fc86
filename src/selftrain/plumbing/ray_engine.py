"""Units of work on a Ray cluster, by Ray Data: actors as many as the cluster has room for, lost ones started again.

Every node needs this project's folder under the same path (a shared file system), since units read and write there.
"""

import logging
import os
import pickle
import socket
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from selftrain.plumbing.engine import MakeWork, Name, Result, Unit, given_out
from selftrain.plumbing.errors import UserError
from selftrain.plumbing.hardware import HardwareConfig

CPUS_BESIDE_GPU = 4
"""Cores of an actor that has a GPU: what loads its images."""
MOST_ACTORS = 1024
AHEAD, MOST_IN_ORDER = 3, 64
"""Units a core that are under work or wait to be taken, where they are done in order; the cores that get such units."""
ANSWERS_WITHIN = 10
"""Seconds."""
SETTINGS = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_BACKEND_LOG_LEVEL": "fatal"}
"""Nothing is reported to anybody, and what goes wrong is one line of ours."""


class RayEngine:
    """The cluster that ``RAY_ADDRESS`` names, or one on this machine."""

    shares_memory = False

    def __init__(self, on_gpu: bool) -> None:
        """``on_gpu``: each worker takes a GPU, if the cluster has any."""
        self.on_gpu = on_gpu

    def share_of(self, machine: HardwareConfig) -> HardwareConfig:
        """See ``Engine``: a GPU and some cores, or one core."""
        if self._takes_gpu():
            return machine.model_copy(update={"workers": CPUS_BESIDE_GPU} if machine.workers == "auto" else {})
        return machine.model_copy(update={"threads": 1, "workers": 0, "device": "cpu"})

    def _takes_gpu(self) -> bool:
        return self.on_gpu and connected().cluster_resources().get("GPU", 0) > 0

    def done(
        self, make_work: MakeWork[Unit, Result], units: Iterable[Unit], name: Name[Unit], what: str
    ) -> Iterator[tuple[Unit, Result]]:
        """See ``Engine``. Raises UserError if the cluster cannot be reached."""
        given = list(units)
        if not given:
            return
        ray = connected()
        import ray.data as ray_data

        with_gpu = self._takes_gpu()
        items = [{"number": number, "unit": pickle.dumps(unit)} for number, unit in enumerate(given)]
        done = (
            ray_data.from_items(items, override_num_blocks=len(items))
            .map_batches(
                Worker,
                fn_constructor_args=(os.getcwd(), _pickled(make_work)),
                batch_size=1,
                batch_format="numpy",
                compute=ray_data.ActorPoolStrategy(min_size=1, max_size=min(len(given), MOST_ACTORS)),
                num_gpus=1 if with_gpu else 0,
                num_cpus=CPUS_BESIDE_GPU if with_gpu else 1,
            )
            .iter_rows()
        )
        try:
            for row in done:
                result = pickle.loads(row["result"])
                if isinstance(result, UserError):
                    raise result
                yield given[int(row["number"])], result
        except ray.exceptions.RayError as error:
            raise UserError(f"{what}: Ray gave up ({_last_line(error)}); run it again, what is done stays") from None

    def in_order(
        self, make_work: MakeWork[Unit, Result], units: Iterable[Unit], name: Name[Unit], remedy: str
    ) -> Iterator[tuple[Unit, Result]]:
        """See ``Engine``. Tasks of Ray, which it gives to other nodes where one dies, with results that it remembers.

        Raises UserError if the cluster cannot be reached.
        """
        ray = connected()
        # In a list it stays where it is, and each process takes it once.
        made = [ray.put(_pickled(make_work))]
        do = ray.remote(num_cpus=1, scheduling_strategy="SPREAD")(_do)

        def give(unit: Unit) -> Any:
            return do.remote(os.getcwd(), made, pickle.dumps(unit))

        def most() -> int:
            # A cluster may grow from nothing, and one process takes all results.
            return AHEAD * min(max(1, int(ray.cluster_resources().get("CPU", 0))), MOST_IN_ORDER)

        for unit, reference in given_out(units, give, most):
            try:
                result = pickle.loads(ray.get(reference))
            except (ray.exceptions.WorkerCrashedError, ray.exceptions.OutOfMemoryError) as error:
                reason = f"the processes that work on it die ({_last_line(error)}); memory may be short, so {remedy}"
                raise UserError(f"{name(unit)}: {reason}, and run it again") from None
            except ray.exceptions.RayError as error:
                raise UserError(f"{name(unit)}: Ray gave up ({_last_line(error)}); run it again") from None
            if isinstance(result, UserError):
                raise result
            yield unit, result


class Worker:
    """What runs in an actor: the work, made once, in the project's folder."""

    def __init__(self, folder: str, make_work: bytes) -> None:
        if not Path(folder).is_dir():
            raise FileNotFoundError(
                f"this node does not have the project's folder {folder}; share it between the nodes"
            )
        os.chdir(folder)
        self.work: Callable[[Any], Any] | UserError
        try:
            self.work = pickle.loads(make_work)()
        except UserError as error:
            self.work = error

    def result(self, unit: bytes) -> bytes:
        """Do one unit. What the user can mend comes back as a result, since Ray would wrap it in its own error."""
        found: object = self.work
        if not isinstance(self.work, UserError):
            try:
                found = self.work(pickle.loads(unit))
            except UserError as error:
                found = error
        return pickle.dumps(found)

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Do the unit of a row of Ray Data."""
        import numpy as np

        return {"number": batch["number"], "result": np.array([self.result(batch["unit"][0])], dtype=object)}


_worker: tuple[Any, Worker] | None = None
"""Of a process that does tasks: the last work's reference, and the work."""


def _do(folder: str, made: list[Any], unit: bytes) -> bytes:
    global _worker
    if _worker is None or _worker[0] != made[0]:
        import ray

        _worker = made[0], Worker(folder, ray.get(made[0]))
    return _worker[1].result(unit)


def connected() -> Any:
    """Ray, connected to a cluster. Raises UserError if it is not installed or cannot be reached."""
    os.environ.update({name: value for name, value in SETTINGS.items() if name not in os.environ})
    try:
        import ray
    except ImportError:
        raise UserError("hardware.engine: Ray is not installed; `uv pip install 'selftrain[ray]'` brings it") from None
    if ray.is_initialized():
        return ray
    address = os.environ.get("RAY_ADDRESS", "")
    host, _, port = address.removeprefix("ray://").rpartition(":")
    try:
        # Ray itself waits for minutes.
        if host and port.isdigit():
            socket.create_connection((host, int(port)), timeout=ANSWERS_WITHIN).close()
        ray.init(log_to_driver=False, logging_level=logging.ERROR, include_dashboard=None if address else False)
    except (ConnectionError, RuntimeError, ValueError, OSError) as error:
        raise UserError(
            f"hardware.engine: the Ray cluster {address or 'on this machine'} cannot be reached "
            f"({_last_line(error)}); start it, or take `engine: local`"
        ) from None
    import ray.data as ray_data

    ray_data.DataContext.get_current().enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)
    return ray


def _pickled(make_work: Callable[[], object]) -> bytes:
    from ray import cloudpickle

    return bytes(cloudpickle.dumps(make_work))  # type: ignore[no-untyped-call]


def _last_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[-1] if lines else type(error).__name__)[:300]
