import os
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from selftrain.plumbing.errors import UserError
from selftrain.plumbing.spool import Spool
from selftrain.plumbing.tracking import Tracker, connect, resend, waiting
from tests.conftest import free_port


def tracker(folder: str = "work") -> Tracker:
    return Tracker(Path(folder), "r", {"pipeline": "p"}, {"a.b": "1"}, {"training": ("data", "digest1")})


def rows(query: str) -> list[tuple[object, ...]]:
    with sqlite3.connect("mlflow.db") as connection:
        return connection.execute(query).fetchall()


STEPS = "select step, value from metrics order by step"


def until(condition: Callable[[], object], seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    # MLflow remembers a database by its address, so each test needs its own.
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")


def test_a_run_has_parameters_tags_inputs_curves_and_environment(tmp_path: Path) -> None:
    one = tracker()
    one.log(1, {"loss": 0.5, "rate": 0.1})
    one.finish("FINISHED")
    assert one.wait_for_run() == (tmp_path / "work" / "mlflow_run_id").read_text()
    assert rows("select name, status, run_uuid from runs") == [("r", "FINISHED", one.run_id)]
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
    until(lambda: not first.spool.unsent())
    second = tracker()
    for step in (20, 30):
        second.log(step, {"loss": 2.0})
    second.finish("FINISHED")
    assert second.run_id == first.run_id
    assert rows(STEPS) == [(10, 1.0), (20, 1.0), (30, 2.0)]
    assert rows("select status from runs") == [("FINISHED",)]


def test_a_kill_between_storing_and_noting_it_stores_no_point_twice() -> None:
    first = tracker()
    first.log(10, {"loss": 1.0})
    first.finish("KILLED")
    Spool(Path("work")).forget_sent()
    with Path("work/points.jsonl").open("a") as file:
        file.write('["loss", 3.0, 17')  # and in the middle of a line
    second = tracker()
    second.log(20, {"loss": 2.0})
    second.finish("FINISHED")
    assert rows(STEPS) == [(10, 1.0), (20, 2.0)]


def test_a_run_that_this_mlflow_does_not_know_is_made_anew() -> None:
    Path("work").mkdir()
    Path("work/mlflow_run_id").write_text("0" * 32)
    one = tracker()
    one.finish("FINISHED")
    assert one.wait_for_run() != "0" * 32


def test_a_deleted_run_becomes_a_new_one_with_all_its_points() -> None:
    one = tracker()
    one.log(10, {"loss": 1.0})
    one.finish("KILLED")
    client, _ = connect()
    client.delete_run(one.run_id)
    two = tracker()
    two.log(20, {"loss": 2.0})
    two.finish("FINISHED")
    assert two.run_id != one.run_id
    assert rows(f"select step, value from metrics where run_uuid = '{two.run_id}' order by step") == [
        (10, 1.0),
        (20, 2.0),
    ]


def test_a_deleted_experiment_is_named_with_how_to_restore_it(capsys: pytest.CaptureFixture[str]) -> None:
    client, experiment = connect()
    client.delete_experiment(experiment)
    with pytest.raises(
        UserError, match=rf"'selftrain' was deleted; `mlflow experiments restore -x {experiment}` brings"
    ):
        connect()
    one = tracker()
    one.log(1, {"loss": 1.0})
    one.finish("FINISHED")
    assert "was deleted; `mlflow experiments restore" in capsys.readouterr().out
    client.restore_experiment(experiment)
    resend(Path("work"))
    assert rows(STEPS) == [(1, 1.0)]
    assert rows("select name, status from runs") == [("r", "FINISHED")]


WITHOUT_A_SERVER = """
import time
from pathlib import Path
from selftrain.plumbing import tracking
tracking.ANSWER_SECONDS = 2
one = tracking.Tracker(Path("work"), "r", {"pipeline": "p"}, {"a.b": "1"}, {"training": ("data", "digest1")})
longest = 0.0
for step in range(1, 61):
    began = time.monotonic()
    one.log(step, {"loss": 1 / step, "rate": 0.1})
    one.flush()
    longest = max(longest, time.monotonic() - began)
assert one.wait_for_run() == ""
one.finish("FINISHED")
print(f"longest {longest}")
"""


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["dead", "mute"])
def test_without_a_server_training_goes_on_and_every_point_is_sent_later(kind: str) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        if kind == "mute":
            listener.listen()
        uri = f"http://me:secret@127.0.0.1:{listener.getsockname()[1]}"
        ended = subprocess.run(
            [sys.executable, "-c", WITHOUT_A_SERVER], env=os.environ | {"MLFLOW_TRACKING_URI": uri},
            capture_output=True, text=True, check=True,
        )  # fmt: skip
    assert "120 points wait in work/points.jsonl; `selftrain doctor --fix` sends them" in ended.stdout
    assert "secret" not in ended.stdout + ended.stderr
    assert float(ended.stdout.split()[-1]) < 1, "seconds that a step waited"
    assert waiting(Path("work")) == 120
    resend(Path("work"))
    assert rows("select count(*) from metrics") == [(120,)]
    assert rows("select name, status from runs") == [("r", "FINISHED")]
    assert waiting(Path("work")) == 0


@pytest.mark.slow
def test_a_server_that_dies_and_comes_back_loses_no_point(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    port = free_port()
    store = f"sqlite:///{tmp_path}/mlflow.db"
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]

    def serve() -> "subprocess.Popen[bytes]":
        environment = os.environ | {"MLFLOW_BACKEND_STORE_URI": store}
        server = subprocess.Popen(
            command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        )
        until(lambda: socket.socket().connect_ex(("127.0.0.1", port)) == 0, 120)
        return server

    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{port}")
    server = serve()
    one = tracker()
    try:
        one.log(1, {"loss": 1.0})
        one.flush()
        until(lambda: not one.spool.unsent(), 60)
        os.killpg(server.pid, 9)
        server.wait()
        for step in range(2, 60):
            one.log(step, {"loss": 1.0})
            one.flush()
        server = serve()
        one.finish("FINISHED")
    finally:
        os.killpg(server.pid, 9)
        server.wait()
    assert rows("select count(*) from metrics") == [(59,)]
    assert rows("select status from runs") == [("FINISHED",)]


def test_a_driver_that_is_missing_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "postgresql://me:secret@127.0.0.1/mlflow")
    with pytest.raises(
        UserError, match=r"MLflow at postgresql://me:\*\*\*@127.0.0.1/mlflow cannot be used: No module named 'psycopg"
    ) as e:
        connect()
    assert "secret" not in str(e.value)


@pytest.mark.slow
def test_processes_that_start_at_once_on_a_new_database() -> None:
    program = (
        "import sys; from pathlib import Path; from selftrain.plumbing.tracking import Tracker\n"
        "t = Tracker(Path(sys.argv[1]), 'r', {}, {}, {}); t.log(1, {'loss': 1.0}); t.finish('FINISHED')"
    )
    processes = [subprocess.Popen([sys.executable, "-c", program, str(n)], env=os.environ) for n in range(6)]
    assert [process.wait() for process in processes] == [0] * 6
    assert rows("select count(*) from runs where status = 'FINISHED'") == [(6,)]
    assert rows("select count(*) from experiments where name = 'selftrain'") == [(1,)]
    assert rows("select count(*) from metrics") == [(6,)]
