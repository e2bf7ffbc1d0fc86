"""MLflow's server or database: where it is, and what it has."""

import importlib.util
import os
from pathlib import Path
from typing import TYPE_CHECKING

from selftrain.plumbing.errors import UserError, one_line
from selftrain.plumbing.files import atomic_path
from selftrain.plumbing.locks import WORK
from selftrain.plumbing.secrets import masked

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

TRACKING_URI = "MLFLOW_TRACKING_URI"
"""The variable that says where MLflow is."""
DEFAULT_URI = "sqlite:///mlflow.db"
EXPERIMENT = "selftrain"
KIND = {"mlflow.experimentKind": "custom_model_development"}
"""Without it MLflow's page opens on an overview for language models, and not on the runs."""


def is_installed() -> bool:
    """Whether MLflow is there at all."""
    return importlib.util.find_spec("mlflow") is not None


def tracking_uri() -> str:
    """``MLFLOW_TRACKING_URI``, or a sqlite file in this folder; a database's path is absolute.

    MLflow remembers databases by their addresses, whatever folder a process works in later.
    """
    uri = os.environ.get(TRACKING_URI) or DEFAULT_URI
    path = uri.removeprefix("sqlite:///")
    return f"sqlite:///{Path(path).absolute()}" if path != uri and not path.startswith("/") else uri


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
    WORK.mkdir(exist_ok=True)
    try:
        # Two processes that create the database's tables at once break each other.
        with FileLock(WORK / "mlflow.lock"):
            uri = tracking_uri()
            _make_database(uri)
            client = MlflowClient(uri)
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

    path = Path(uri.removeprefix("sqlite:///").partition("?")[0])
    if not uri.startswith("sqlite:///") or path.exists():
        return
    with atomic_path(path) as temporary:
        MlflowClient(f"sqlite:///{temporary}").search_experiments(max_results=1)
