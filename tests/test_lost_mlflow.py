"""MLflow that is away, slow to answer, or locked for a moment."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from selftrain.plumbing.tracker import resend, waiting
from tests.conftest import free_port
from tests.tracked import change, fail, own_folder, rows, tracker, until

__all__ = ["own_folder"]


WITHOUT_A_SERVER = """
import time
from pathlib import Path
from selftrain.plumbing import tracker
tracker.ANSWER_SECONDS = 2
one = tracker.Tracker(Path("work"), "r", {"pipeline": "p"}, {"a.b": "1"}, {"training": ("data", "digest1")})
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
    assert "120 points wait in work; `selftrain doctor --fix` sends them" in ended.stdout
    assert "secret" not in ended.stdout + ended.stderr
    assert float(ended.stdout.split()[-1]) < 2, "seconds that a step waited: no step waits for an answer"
    assert waiting(Path("work")) == "120 points wait"
    resend(Path("work"))
    assert rows("select count(*) from metrics") == [(120,)]
    assert rows("select name, status from runs") == [("r", "FINISHED")]
    assert waiting(Path("work")) == ""


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
        until(lambda: not one.unsent(), 60)
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


@pytest.mark.parametrize("method", ["get_run", "log_batch", "log_inputs", "log_text", "set_terminated"])
def test_what_fails_for_a_moment_is_asked_again(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    first = tracker()
    if method == "get_run":
        first.finish("KILLED")
    fail(monkeypatch, method, 2)
    one = tracker()
    one.log(10, {"loss": 1.0})
    one.finish("FINISHED")
    assert rows("select status from runs where status = 'FINISHED'") == [("FINISHED",)]
    assert waiting(Path("work")) == ""
    run = one.wait_for_run()
    assert run == first.wait_for_run() or method != "get_run", "the same run goes on"
    assert rows(f"select key, value from params where run_uuid = '{run}'") == [("a.b", "1")]
    assert rows(f"select step from metrics where run_uuid = '{run}'") == [(10,)]
    assert rows("select name from datasets") == [("data",)]


def test_an_end_that_mlflow_did_not_take_waits_too(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    mend = fail(monkeypatch, "set_terminated", 10)
    one = tracker()
    one.log(10, {"loss": 1.0})
    one.finish("FINISHED")
    assert rows("select status from runs") == [("RUNNING",)]
    assert "its end waits in work; `selftrain doctor --fix` sends them" in capsys.readouterr().out
    assert waiting(Path("work")) == "its end waits"
    mend()
    ((began,),) = rows("select start_time from runs")
    resend(Path("work"))
    assert rows("select status, start_time from runs") == [("FINISHED", began)]
    assert waiting(Path("work")) == ""


def test_a_run_that_waited_has_its_own_times(monkeypatch: pytest.MonkeyPatch) -> None:
    mend = fail(monkeypatch, "create_run", 10)
    one = tracker()
    one.log(10, {"loss": 1.0})
    one.finish("KILLED")
    change("work/mlflow.json", begun=1_000, ended=5_000)
    mend()
    resend(Path("work"))
    assert rows("select status, start_time, end_time from runs") == [("KILLED", 1_000, 5_000)]
