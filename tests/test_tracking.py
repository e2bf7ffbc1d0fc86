import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from selftrain.plumbing.errors import UserError
from selftrain.plumbing.tracking import Tracker


def tracker(run_id: str | None = None, made: list[str] | None = None) -> Tracker:
    on_run = (made if made is not None else []).append
    return Tracker("r", run_id, {"pipeline": "p"}, {"a.b": "1"}, {"training": ("data", "digest1")}, on_run)


def rows(query: str) -> list[tuple[object, ...]]:
    with sqlite3.connect("mlflow.db") as connection:
        return connection.execute(query).fetchall()


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    # MLflow remembers a database by its address, so each test needs its own.
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")


def test_a_run_has_parameters_tags_inputs_curves_and_environment(tmp_path: Path) -> None:
    made: list[str] = []
    one = tracker(made=made)
    one.log(1, {"loss": 0.5, "rate": 0.1})
    one.finish("FINISHED")
    assert made == [one.wait_for_run()]
    assert rows("select name, status from runs") == [("r", "FINISHED")]
    assert rows("select key, value from params") == [("a.b", "1")]
    assert ("pipeline", "p") in rows("select key, value from tags")
    assert rows("select name, digest from datasets") == [("data", "digest1")]
    assert sorted(rows("select key, step, value from metrics")) == [("loss", 1, 0.5), ("rate", 1, 0.1)]
    (environment,) = tmp_path.rglob("environment.txt")
    assert "torch==" in environment.read_text()


def test_a_continued_run_stores_no_point_twice() -> None:
    first = tracker()
    for step in (10, 20):
        first.log(step, {"loss": 1.0})
    first.flush()
    second = tracker(first.wait_for_run())
    for step in (20, 30):
        second.log(step, {"loss": 2.0})
    second.finish("FINISHED")
    assert rows("select step, value from metrics order by step") == [(10, 1.0), (20, 1.0), (30, 2.0)]
    assert rows("select status from runs") == [("FINISHED",)]


def test_a_run_that_this_mlflow_does_not_know_is_made_anew() -> None:
    one = tracker("0" * 32)
    one.finish("FINISHED")
    assert one.wait_for_run() != "0" * 32


def test_a_dead_server_fails_the_training_early_with_its_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    one = tracker()
    with pytest.raises(UserError, match=r"MLflow at http://127.0.0.1:9 cannot be used.*check MLFLOW_TRACKING_URI"):
        one.wait_for_run()
    with pytest.raises(UserError, match="cannot be used"):
        one.log(1, {"loss": 1.0})
    one.finish("FAILED")


@pytest.mark.slow
def test_processes_that_start_at_once_on_a_new_database() -> None:
    program = (
        "from selftrain.plumbing.tracking import Tracker\n"
        "t = Tracker('r', None, {}, {}, {}, lambda run_id: None); t.log(1, {'loss': 1.0}); t.finish('FINISHED')"
    )
    processes = [subprocess.Popen([sys.executable, "-c", program], env=os.environ) for _ in range(6)]
    assert [process.wait() for process in processes] == [0] * 6
    assert rows("select count(*) from runs where status = 'FINISHED'") == [(6,)]
    assert rows("select count(*) from experiments where name = 'selftrain'") == [(1,)]
