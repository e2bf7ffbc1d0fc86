"""A training's MLflow run, on a thread of its own: continued when the training is.

MLflow may be far away, or down. A training never waits for it and goes on without it: what MLflow does not have yet is
kept in a folder, with what it has. ``mlflow.json`` changes after each of MLflow's answers, so that a kill at any moment
costs a call that is made again.
"""

import json
import threading
import time
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from selftrain.plumbing.errors import UserError, one_line
from selftrain.plumbing.files import write_json
from selftrain.plumbing.secrets import masked
from selftrain.plumbing.spool import Point, Spool
from selftrain.plumbing.tracking import connect, tracking_uri

if TYPE_CHECKING:
    from mlflow import MlflowClient

RUN = "mlflow.json"
"""The file of a tracker's folder that says what its run is and what MLflow has of it."""
ANSWER_SECONDS = 60
"""That a training waits for MLflow at its end."""
LAST_TRIES, PAUSE = 3, 1.0
"""How often the end is tried, and seconds between: a database may be locked for a moment."""
RESEND = "`selftrain doctor --fix` sends them"
METRICS_A_CALL, PARAMS_A_CALL = 1000, 100
"""The most that MLflow takes."""


@dataclass(frozen=True)
class TrackedRun:
    """A run, and what MLflow has of it."""

    name: str
    tags: dict[str, str]
    params: dict[str, str]
    datasets: dict[str, tuple[str, str]]
    """By context (``training``, …): (path, digest)."""
    begun: int = field(default_factory=lambda: _now())
    """Milliseconds since 1970."""
    status: str = ""
    """FINISHED, FAILED or KILLED; empty as long as it is trained, and after SIGKILL."""
    ended: int | None = None
    id: str = ""
    """MLflow's; the rest is about the run that has it."""
    described: bool = False
    """Whether it has the parameters, datasets and environment."""
    points: int = 0
    """How many it has."""
    stored_status: str = ""


def read_run(folder: Path) -> TrackedRun | None:
    """What a tracker's folder says of its run; None if there is none."""
    try:
        return TrackedRun(**json.loads((folder / RUN).read_text(encoding="utf-8")))
    except (FileNotFoundError, ValueError, TypeError):
        return None


class Tracker:
    """One training's run."""

    def __init__(
        self,
        folder: Path,
        name: str,
        tags: dict[str, str],
        params: dict[str, str],
        datasets: dict[str, tuple[str, str]],
        status: str = "",
        ended: int | None = None,
    ) -> None:
        """``folder`` remembers the run; see ``TrackedRun`` for the rest. With ``status`` the run has ended already."""
        self.folder, self.spool = folder, Spool(folder)
        self._lock = threading.Lock()
        before = read_run(folder)
        self._run = TrackedRun(name, tags, params, datasets, status=status, ended=ended)
        if before is not None:
            has = min(before.points, len(self.spool.points))
            self._run = replace(self._run, begun=before.begun, id=before.id, described=before.described, points=has)
        self._change()
        self._steps: dict[int, tuple[int, dict[str, float]]] = {}
        self._abandoned: list[str] = []
        self._client: MlflowClient | None = None
        self._said = ""
        self._wake, self._tried = threading.Event(), threading.Event()
        self._wake.set()
        self._thread = threading.Thread(target=self._work, name="mlflow", daemon=True)
        self._thread.start()

    def log(self, step: int, metrics: dict[str, float]) -> None:
        """Take a point of each curve; kept by the next ``flush``."""
        # After a kill between keeping and checkpointing, the same steps come again.
        if step > self.spool.last_step:
            at, values = self._steps.get(step, (_now(), {}))
            self._steps[step] = (at, values | {name: float(value) for name, value in metrics.items()})

    def flush(self) -> None:
        """Keep the points, and have them stored."""
        steps, self._steps = self._steps, {}
        self.spool.add(steps)
        self._wake.set()

    def wait_for_run(self) -> str:
        """The run's id, once MLflow was asked for one; empty if it did not answer."""
        self._tried.wait(ANSWER_SECONDS)
        return self._run.id

    def unsent(self) -> list[Point]:
        """The points that MLflow does not have yet."""
        return self.spool.points[self._run.points :]

    def end_abandoned(self, run_id: str) -> None:
        """Mark a run that was killed and will not be continued, since its parameters or data changed."""
        self._abandoned.append(run_id)
        self._wake.set()

    def finish(self, status: str) -> None:
        """Store what is left and end the run now, as FINISHED, FAILED or KILLED; waits a while for a slow server."""
        self.flush()
        self._change(status=status, ended=_now())
        self._wake.set()
        self.wait_for_end()

    def wait_for_end(self) -> None:
        """Wait until the end is stored, for a while; what MLflow does not have then is said."""
        self._thread.join(ANSWER_SECONDS)
        if left := _waits(self._run, self.spool):
            print(f"MLflow at {masked(tracking_uri())}: {left} in {self.folder}; {RESEND}")

    def _change(self, **values: Any) -> None:
        with self._lock:
            changed = replace(self._run, **values)
            write_json(self.folder / RUN, asdict(changed))
            self._run = changed

    def _work(self) -> None:
        tries = 0
        while tries < LAST_TRIES:
            self._wake.wait(PAUSE if tries else None)
            self._wake.clear()
            last = bool(self._run.status)
            try:
                self._store()
                if last:
                    return
            except Exception as error:  # noqa: BLE001 - whatever MLflow raises, the training goes on, and this is said
                reason = one_line(masked(str(error)))
                if reason != self._said:
                    print(f"{reason if isinstance(error, UserError) else f'MLflow: {reason}'}; the training goes on")
                self._said = reason
                tries += last
            finally:
                self._tried.set()

    def _store(self) -> None:
        from mlflow.entities import Metric, Param

        client = self._client or self._connect()
        run = self._run
        if not run.described:
            params = [Param(key, value) for key, value in run.params.items()]
            for start in range(0, len(params), PARAMS_A_CALL):
                client.log_batch(run.id, params=params[start : start + PARAMS_A_CALL])
            client.log_inputs(run.id, [_dataset_input(*item) for item in run.datasets.items()])
            client.log_text(run.id, _environment(), "environment.txt")
            self._change(described=True)
        while batch := self.unsent()[:METRICS_A_CALL]:
            client.log_batch(run.id, metrics=[Metric(*point) for point in batch])
            self._change(points=self._run.points + len(batch))
        if status := self._run.status:
            client.set_terminated(run.id, status, self._run.ended)
            self._change(stored_status=status)
        while self._abandoned:
            if _status_of(client, self._abandoned[-1]) == "RUNNING":
                client.set_terminated(self._abandoned[-1], "KILLED")
            self._abandoned.pop()

    def _connect(self) -> "MlflowClient":
        """Connect, and continue the run or make one."""
        client, experiment_id = connect()
        run = self._run
        if run.id and _status_of(client, run.id) is not None:
            client.update_run(run.id, status="RUNNING")
        else:
            made = client.create_run(experiment_id, start_time=run.begun, run_name=run.name, tags=run.tags)
            self._change(id=made.info.run_id, described=False, points=0)
        self._client = client
        return client


def resend(folder: Path) -> None:
    """Send what waits in a tracker's folder. Raises UserError if MLflow does not take it."""
    run, spool = read_run(folder), Spool(folder)
    assert run is not None
    last = max((at for _, _, at, _ in spool.points), default=run.begun)
    status, ended = run.status or "KILLED", run.ended or last
    tracker = Tracker(folder, run.name, run.tags, run.params, run.datasets, status, ended)
    tracker.wait_for_end()
    if waiting(folder):
        raise UserError(f"MLflow at {masked(tracking_uri())} did not take what waits in {folder}; try again later")


def waiting(folder: Path) -> str:
    """What of the run in a tracker's folder waits for MLflow, in words; empty if nothing does."""
    run = read_run(folder)
    return "" if run is None else _waits(run, Spool(folder))


def _waits(run: TrackedRun, spool: Spool) -> str:
    points = max(0, len(spool.points) - run.points)
    if points:
        return f"{points} points wait"
    return "its end waits" if run.status != run.stored_status else ""


def _status_of(client: "MlflowClient", run_id: str) -> str | None:
    """What MLflow says of a run; None if it has none of this id, or has deleted it."""
    from mlflow.exceptions import MlflowException

    try:
        info = client.get_run(run_id).info
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return None  # another tracking server than before
    return None if info.lifecycle_stage == "deleted" else str(info.status)


def _dataset_input(context: str, path_and_digest: tuple[str, str]) -> Any:
    from mlflow.entities import Dataset, DatasetInput, InputTag

    path, digest = path_and_digest
    source = json.dumps({"uri": str(Path(path).resolve())})
    dataset = Dataset(name=path, digest=digest, source_type="local", source=source)
    return DatasetInput(dataset, [InputTag("mlflow.data.context", context)])


def _environment() -> str:
    """The Python version and every installed package, one a line."""
    import platform
    from importlib.metadata import distributions

    packages = sorted({f"{item.metadata['Name']}=={item.version}" for item in distributions()}, key=str.lower)
    return "\n".join([f"# Python {platform.python_version()} on {platform.platform()}", *packages, ""])


def _now() -> int:
    return int(time.time() * 1000)
