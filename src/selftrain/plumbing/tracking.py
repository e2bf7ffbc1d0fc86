"""MLflow: one run a training, continued when the training is, on a thread of its own.

MLflow takes seconds to import and may be far away, or down; training starts meanwhile and never waits for a curve.
"""

import importlib.util
import json
import os
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from selftrain.plumbing.errors import UserError, one_line
from selftrain.plumbing.files import atomic_path, read_json, write_json
from selftrain.plumbing.secrets import masked
from selftrain.plumbing.spool import POINTS, Point, Spool

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

DEFAULT_URI = "sqlite:///mlflow.db"
EXPERIMENT = "selftrain"
KIND = {"mlflow.experimentKind": "custom_model_development"}
"""Without it MLflow's page opens on an overview for language models, and not on the runs."""
ANSWER_SECONDS = 60
"""That a training waits for MLflow at its end."""
ABOUT, RUN_ID = "mlflow.json", "mlflow_run_id"
"""Files of a tracker's folder: what its run is made of, and the run's id."""
RESEND = "`selftrain doctor --fix` sends them"
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
    if masked(tracking_uri()) != tracking_uri():
        # MLflow prints the run's address, and the password with it.
        os.environ["MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT"] = "true"
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
            _make_database(tracking_uri())
            client = MlflowClient(tracking_uri())
            experiment = client.get_experiment_by_name(name)
            if experiment is not None and experiment.lifecycle_stage == "deleted":
                raise UserError(
                    f"MLflow: the experiment '{name}' was deleted; `mlflow experiments restore -x "
                    f"{experiment.experiment_id}` brings it back, or name another by MLFLOW_EXPERIMENT_NAME"
                )
            experiment_id = experiment.experiment_id if experiment else client.create_experiment(name, tags=KIND)
    except (MlflowException, ImportError) as error:
        reason = one_line(masked(str(error)))
        uri = masked(tracking_uri())
        raise UserError(f"MLflow at {uri} cannot be used: {reason}; check MLFLOW_TRACKING_URI") from None
    return client, experiment_id


def finished_runs(query: str, experiment: str | None = None) -> "list[Run]":
    """MLflow's finished runs of an experiment that a query of its own finds, the newest first."""
    query += " and attributes.status = 'FINISHED'"
    client, experiment_id = connect(experiment)
    runs: list[Run] = []
    token = None
    while True:
        page = client.search_runs([experiment_id], query, order_by=["attributes.start_time DESC"], page_token=token)
        runs += page
        token = page.token
        if not token:
            return runs


def _make_database(uri: str) -> None:
    """Make a sqlite database that is not there, whole or not at all: a kill while MLflow makes its tables breaks it."""
    from mlflow import MlflowClient

    # Absolute, since MLflow remembers databases by their names.
    path = Path(uri.removeprefix("sqlite:///")).absolute()
    if not uri.startswith("sqlite:///") or path.exists():
        return
    with atomic_path(path) as temporary:
        MlflowClient(f"sqlite:///{temporary}").search_experiments(max_results=1)


class Tracker:
    """One training's MLflow run: continued if ``folder`` remembers it, made anew otherwise.

    Training never waits for MLflow, and goes on without it: points are kept in the folder until they are stored.
    """

    def __init__(
        self,
        folder: Path,
        name: str,
        tags: dict[str, str],
        params: dict[str, str],
        datasets: dict[str, tuple[str, str]],
    ) -> None:
        """``datasets`` maps a context (``training``, …) to (path, digest)."""
        self.folder, self.spool = folder, Spool(folder)
        self._made: dict[str, Any] = {"name": name, "tags": tags, "params": params, "datasets": datasets}
        write_json(folder / ABOUT, self._made | {"status": ""})
        remembered = folder / RUN_ID
        self.run_id = remembered.read_text().strip() if remembered.exists() else ""
        self._points: list[Point] = []
        self._abandoned: list[str] = []
        self._begun = int(time.time() * 1000)
        self._client: MlflowClient | None = None
        self._status = ""
        self._said = ""
        self._wake, self._tried = threading.Event(), threading.Event()
        self._wake.set()
        self._thread = threading.Thread(target=self._work, name="mlflow", daemon=True)
        self._thread.start()

    def log(self, step: int, metrics: dict[str, float]) -> None:
        """Take a point of each curve; kept by the next ``flush``."""
        # After a kill between keeping and checkpointing, the same steps come again.
        if step > self.spool.last_step:
            now = int(time.time() * 1000)
            self._points += [(name, float(value), now, step) for name, value in metrics.items()]

    def flush(self) -> None:
        """Keep the points, and have them stored."""
        points, self._points = self._points, []
        self.spool.add(points)
        self._wake.set()

    def wait_for_run(self) -> str:
        """The run's id, once MLflow was asked for one; empty if it did not answer."""
        self._tried.wait(ANSWER_SECONDS)
        return self.run_id

    def end_abandoned(self, run_id: str) -> None:
        """Mark a run that was killed and will not be continued, since its parameters or data changed."""
        self._abandoned.append(run_id)
        self._wake.set()

    def finish(self, status: str) -> None:
        """Store what is left and end the run as FINISHED, FAILED or KILLED; waits a while for a slow server."""
        write_json(self.folder / ABOUT, self._made | {"status": status})
        self._status = status
        self.flush()
        self._thread.join(ANSWER_SECONDS)
        if self._thread.is_alive() or self.spool.unsent():
            left = len(self.spool.unsent())
            print(f"MLflow at {masked(tracking_uri())}: {left} points wait in {self.spool.path}; {RESEND}")

    def _work(self) -> None:
        while True:
            self._wake.wait()
            self._wake.clear()
            last = bool(self._status)
            try:
                self._store()
            except Exception as error:  # noqa: BLE001 - whatever MLflow raises, the training goes on, and this is said
                reason = one_line(masked(str(error)))
                if reason != self._said:
                    print(f"{reason if isinstance(error, UserError) else f'MLflow: {reason}'}; the training goes on")
                self._said = reason
            finally:
                self._tried.set()
            if last:
                return

    def _store(self) -> None:
        from mlflow.entities import Metric

        client = self._client or self._start()
        while self._abandoned:
            if client.get_run(self._abandoned[-1]).info.status == "RUNNING":
                client.set_terminated(self._abandoned[-1], "KILLED")
            self._abandoned.pop()
        while batch := self.spool.unsent()[:BATCH]:
            client.log_batch(self.run_id, metrics=[Metric(*point) for point in batch])
            self.spool.mark_sent(len(batch))
        if self._status:
            client.set_terminated(self.run_id, self._status)

    def _start(self) -> "MlflowClient":
        """Connect, and continue the run or make one."""
        from mlflow.entities import Param

        client, experiment_id = connect()
        if not (self.run_id and _continues(client, self.run_id)):
            about = self._made
            run = client.create_run(experiment_id, start_time=self._begun, run_name=about["name"], tags=about["tags"])
            self.run_id = run.info.run_id
            (self.folder / RUN_ID).write_text(self.run_id)
            self.spool.forget_sent()
            client.log_batch(self.run_id, params=[Param(key, value) for key, value in about["params"].items()])
            client.log_inputs(self.run_id, [_dataset_input(*item) for item in about["datasets"].items()])
            client.log_text(self.run_id, _environment(), "environment.txt")
        self._client = client
        return client


def resend(folder: Path) -> None:
    """Send what waits in a tracker's folder. Raises UserError if MLflow does not take it."""
    about = read_json(folder / ABOUT, "dvc repro")
    status = about.pop("status") or "KILLED"
    tracker = Tracker(folder, **about)
    tracker.finish(status)
    if tracker.spool.unsent():
        raise UserError(f"MLflow at {masked(tracking_uri())} did not take the points of {folder}; try again later")


def waiting(folder: Path) -> int:
    """How many points wait in a tracker's folder."""
    return len(Spool(folder).unsent()) if (folder / POINTS).exists() else 0


def _continues(client: "MlflowClient", run_id: str) -> bool:
    """Whether a run is there; it runs again then."""
    from mlflow.exceptions import MlflowException

    try:
        if client.get_run(run_id).info.lifecycle_stage == "deleted":
            return False
    except MlflowException:
        return False  # another tracking server than before
    client.update_run(run_id, status="RUNNING")
    return True


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
