import os
import subprocess
import sys
from pathlib import Path

import pytest

from selftrain.plumbing.errors import UserError
from selftrain.plumbing.spool import Spool
from selftrain.plumbing.tracker import Tracker, read_run, resend, waiting
from selftrain.plumbing.tracking import connect
from tests.tracked import STEPS, change, own_folder, rows, tracker, until

__all__ = ["own_folder"]


def test_a_run_has_parameters_tags_inputs_curves_and_environment(tmp_path: Path) -> None:
    one = tracker()
    one.log(1, {"loss": 0.5, "rate": 0.1})
    one.finish("FINISHED")
    run = read_run(tmp_path / "work")
    assert run is not None
    assert one.wait_for_run() == run.id
    assert rows("select name, status, run_uuid from runs") == [("r", "FINISHED", run.id)]
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
    until(lambda: not first.unsent())
    second = tracker()
    for step in (20, 30):
        second.log(step, {"loss": 2.0})
    second.finish("FINISHED")
    assert second.wait_for_run() == first.wait_for_run()
    assert rows(STEPS) == [(10, 1.0), (20, 1.0), (30, 2.0)]
    assert rows("select status from runs") == [("FINISHED",)]


def test_a_kill_between_storing_and_noting_it_stores_no_point_twice() -> None:
    first = tracker()
    first.log(10, {"loss": 1.0})
    first.finish("KILLED")
    change("work/mlflow.json", points=0)
    with Path("work/curves.jsonl").open("a") as file:
        file.write('[20, 1700000000000, {"loss": 3')  # and in the middle of a line
    second = tracker()
    second.log(20, {"loss": 2.0})
    second.finish("FINISHED")
    assert rows(STEPS) == [(10, 1.0), (20, 2.0)]


def test_a_run_that_this_mlflow_does_not_know_is_made_anew() -> None:
    one = tracker()
    one.log(10, {"loss": 1.0})
    one.finish("KILLED")
    change("work/mlflow.json", id="0" * 32)
    two = tracker()
    two.finish("FINISHED")
    assert two.wait_for_run() not in ("0" * 32, one.wait_for_run())
    assert rows(f"select step from metrics where run_uuid = '{two.wait_for_run()}'") == [(10,)]
    assert rows("select count(*) from params") == [(2,)]


def test_a_deleted_run_becomes_a_new_one_with_all_its_points() -> None:
    one = tracker()
    one.log(10, {"loss": 1.0})
    one.finish("KILLED")
    client, _ = connect()
    client.delete_run(one.wait_for_run())
    two = tracker()
    two.log(20, {"loss": 2.0})
    two.finish("FINISHED")
    assert two.wait_for_run() != one.wait_for_run()
    assert rows(f"select step, value from metrics where run_uuid = '{two.wait_for_run()}' order by step") == [
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
        "import sys; from pathlib import Path; from selftrain.plumbing.tracker import Tracker\n"
        "t = Tracker(Path(sys.argv[1]), 'r', {}, {}, {}); t.log(1, {'loss': 1.0}); t.finish('FINISHED')"
    )
    processes = [
        subprocess.Popen([sys.executable, "-c", program, str(n)], env=os.environ, stdout=subprocess.PIPE, text=True)
        for n in range(6)
    ]
    outputs = [process.communicate()[0] for process in processes]
    assert [process.returncode for process in processes] == [0] * 6
    assert "the training goes on" not in "".join(outputs), "MLflow refused one of them"
    for late in (Path(str(n)) for n in range(6) if waiting(Path(str(n)))):  # a slow machine takes over a minute for six
        resend(late)
    assert rows("select count(*) from runs where status = 'FINISHED'") == [(6,)]
    assert rows("select count(*) from experiments where name = 'selftrain'") == [(1,)]
    assert rows("select count(*) from metrics") == [(6,)]


def test_a_run_that_was_left_is_ended_and_one_that_nobody_knows_holds_nothing_up() -> None:
    left = tracker("left")
    left.log(1, {"loss": 2.0})
    left.flush()
    until(lambda: not left.unsent())
    one = tracker()
    for run in ("0" * 32, left.wait_for_run()):
        one.end_abandoned(run)
    one.log(10, {"loss": 1.0})
    one.finish("FINISHED")
    assert rows("select status from runs order by status") == [("FINISHED",), ("KILLED",)]
    assert rows(STEPS) == [(1, 2.0), (10, 1.0)]


def test_more_parameters_than_mlflow_takes_at_once() -> None:
    one = Tracker(Path("work"), "r", {}, {f"p{number}": "x" for number in range(250)}, {})
    one.finish("FINISHED")
    assert rows("select count(*) from params") == [(250,)]


def test_of_a_step_there_is_all_or_nothing() -> None:
    one = tracker()
    one.log(10, {"loss": 1.0})
    one.log(10, {"accuracy": 0.5})
    one.log(20, {"loss": 1.0, "accuracy": 0.6})
    one.finish("KILLED")
    kept = Path("work/curves.jsonl").read_bytes()
    for cut in range(len(kept)):
        Path("cut").mkdir(exist_ok=True)
        Path("cut/curves.jsonl").write_bytes(kept[:cut])
        steps = {step for *_, step in Spool(Path("cut")).points}
        assert len(Spool(Path("cut")).points) == 2 * len(steps)
        assert Spool(Path("cut")).last_step == max(steps, default=-1)
