"""A training that is tracked in a database of its own, and what that database holds."""

import sqlite3
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from selftrain.plumbing.files import read_json, write_json
from selftrain.plumbing.tracker import Tracker


def tracker(folder: str = "work") -> Tracker:
    return Tracker(Path(folder), "r", {"pipeline": "p"}, {"a.b": "1"}, {"training": ("data", "digest1")})


def rows(query: str) -> list[tuple[object, ...]]:
    with sqlite3.connect("mlflow.db") as connection:
        return connection.execute(query).fetchall()


def change(file: str, **values: object) -> None:
    write_json(Path(file), read_json(Path(file), "") | values)


def fail(monkeypatch: pytest.MonkeyPatch, method: str, times: int) -> Callable[[], None]:
    """MLflow's client raises what a locked database does, so often, or until what is returned is called."""
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    whole, left = getattr(MlflowClient, method), [times]

    def failing(self: object, *args: object, **kwargs: object) -> object:
        if left[0]:
            left[0] -= 1
            raise MlflowException("(sqlite3.OperationalError) database is locked")
        return whole(self, *args, **kwargs)

    monkeypatch.setattr(MlflowClient, method, failing)
    return lambda: monkeypatch.setattr(MlflowClient, method, whole)


STEPS = "select step, value from metrics order by step"


def until(condition: Callable[[], object], seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    # MLflow remembers a database by its address, so each test needs its own.
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
