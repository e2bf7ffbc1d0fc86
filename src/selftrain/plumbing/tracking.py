"""MLflow: one run a training, continued when the training is, on a thread of its own.

MLflow takes seconds to import and may be far away; training starts meanwhile and never waits for a curve.
"""

import importlib.util
import json
import os
import queue
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from selftrain.plumbing.errors import UserError

if TYPE_CHECKING:
    from mlflow import MlflowClient

DEFAULT_URI = "sqlite:///mlflow.db"
EXPERIMENT = "selftrain"
KIND = {"mlflow.experimentKind": "custom_model_development"}
"""Without it MLflow's page opens on an overview for language models, and not on the runs."""
FLUSH_SECONDS = 60
BATCH = 1000
"""The most metrics that MLflow takes in one call."""


def is_installed() -> bool:
    """Whether MLflow is there at all."""
    return importlib.util.find_spec("mlflow") is not None


def tracking_uri() -> str:
    """``MLFLOW_TRACKING_URI``, or a sqlite file in this folder."""
    return os.environ.get("MLFLOW_TRACKING_URI") or DEFAULT_URI


def connect(name: str | None = None) -> "tuple[MlflowClient, str]":
    """An MLflow client and an experiment's id, by default that of ``MLFLOW_EXPERIMENT_NAME`` or ours.

    Raises UserError if the server cannot be reached.
    """
    if not is_installed():
        raise UserError("MLflow is not installed; `pip install 'selftrain[track]'`")
    name = name or os.environ.get("MLFLOW_EXPERIMENT_NAME") or EXPERIMENT
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")
    import logging

    from filelock import FileLock
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    logging.getLogger("alembic").setLevel(logging.WARNING)
    logging.getLogger("mlflow").setLevel(logging.WARNING)
    Path(".selftrain").mkdir(exist_ok=True)
    try:
        # Two processes that create the database's tables at once break each other.
        with FileLock(".selftrain/mlflow.lock"):
            client = MlflowClient(tracking_uri())
            experiment = client.get_experiment_by_name(name)
            experiment_id = experiment.experiment_id if experiment else client.create_experiment(name, tags=KIND)
    except MlflowException as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"MLflow at {tracking_uri()} cannot be used: {reason}; check MLFLOW_TRACKING_URI") from None
    return client, experiment_id


class Tracker:
    """One training's MLflow run. Give it ``run_id`` to continue a run; it makes a new one otherwise."""

    def __init__(
        self,
        name: str,
        run_id: str | None,
        tags: dict[str, str],
        params: dict[str, str],
        datasets: dict[str, tuple[str, str]],
        on_run: Callable[[str], object],
    ) -> None:
        """``datasets`` maps a context (``training``, …) to (path, digest); ``on_run`` gets a new run's id."""
        self._jobs: queue.Queue[Callable[[], None] | None] = queue.Queue()
        self._points: list[tuple[str, float, int, int]] = []
        self._unstored = 0
        self._last_step = -1
        self._error: Exception | None = None
        self._begun = int(time.time() * 1000)
        self._started = threading.Event()
        self.run_id = run_id
        self._jobs.put(lambda: self._start(name, tags, params, datasets, on_run))
        self._thread = threading.Thread(target=self._work, name="mlflow", daemon=True)
        self._thread.start()

    def log(self, step: int, metrics: dict[str, float]) -> None:
        """Take a point of each curve; stored by the next ``flush``. Raises UserError if MLflow cannot be used."""
        if self._error is not None:
            raise self._error
        now = int(time.time() * 1000)
        self._points += [(name, float(value), now, step) for name, value in metrics.items()]

    def flush(self) -> None:
        """Store the points; waits for a slow server a while, but not for a dead one."""
        points, self._points = self._points, []
        self._jobs.put(lambda: self._store(points))
        stored = threading.Event()
        self._jobs.put(stored.set)
        stored.wait(FLUSH_SECONDS)

    def wait_for_run(self) -> str:
        """The run's id, once MLflow has given it. Raises UserError if it could not."""
        self._started.wait()
        if self._error is not None:
            raise self._error
        return self._known_run()

    def end_abandoned(self, run_id: str) -> None:
        """Mark a run that was killed and will not be continued, since its parameters or data changed."""

        def end() -> None:
            if self._client.get_run(run_id).info.status == "RUNNING":
                self._client.set_terminated(run_id, "KILLED")

        self._jobs.put(end)

    def finish(self, status: str) -> None:
        """Store what is left and end the run as FINISHED, FAILED or KILLED; waits."""
        points, self._points = self._points, []
        self._jobs.put(lambda: self._store(points))
        self._jobs.put(lambda: self._client.set_terminated(self._known_run(), status))
        self._jobs.put(None)
        self._thread.join()
        if self._unstored:
            print(f"MLflow at {tracking_uri()}: {self._unstored} points of the curves could not be stored")

    def _known_run(self) -> str:
        assert self.run_id is not None
        return self.run_id

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            try:
                if self._error is None:
                    job()
            except Exception as error:  # noqa: BLE001 - handed to the training thread by wait_for_run
                if not self._started.is_set():
                    self._error = error
                else:
                    print(f"MLflow: {' '.join(str(error).split())[:200]}")
            finally:
                self._started.set()

    def _start(
        self,
        name: str,
        tags: dict[str, str],
        params: dict[str, str],
        datasets: dict[str, tuple[str, str]],
        on_run: Callable[[str], object],
    ) -> None:
        from mlflow.entities import Param

        self._client, experiment_id = connect()
        if self.run_id is not None and self._continue_run(self.run_id):
            return
        run = self._client.create_run(experiment_id, start_time=self._begun, run_name=name, tags=tags)
        self.run_id = run.info.run_id
        on_run(self.run_id)
        self._client.log_batch(self.run_id, params=[Param(key, value) for key, value in params.items()])
        self._client.log_inputs(self.run_id, [_dataset_input(*item) for item in datasets.items()])
        self._client.log_text(self.run_id, _environment(), "environment.txt")

    def _continue_run(self, run_id: str) -> bool:
        from mlflow.exceptions import MlflowException

        try:
            self._client.get_run(run_id)
        except MlflowException:
            return False  # another tracking server than before, or a deleted run
        self._client.update_run(run_id, status="RUNNING")
        history = self._client.get_metric_history(run_id, "loss")
        self._last_step = max((point.step for point in history), default=-1)
        return True

    def _store(self, points: list[tuple[str, float, int, int]]) -> None:
        from mlflow.entities import Metric

        # After a kill between storing and checkpointing, the same steps come again.
        new = [Metric(*point) for point in points if point[3] > self._last_step]
        self._unstored += len(new)
        for start in range(0, len(new), BATCH):
            batch = new[start : start + BATCH]
            self._client.log_batch(self._known_run(), metrics=batch)
            self._unstored -= len(batch)


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
