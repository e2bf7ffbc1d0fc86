import json
from pathlib import Path

import pytest

from selftrain.report.rounds import best_run, stop_lines, verdicts
from selftrain.report.runs import chain_saw, load_runs
from selftrain.report.summary import print_summary
from tests.report.evaluated import write_run

NAMES = ("teacher", "student1", "student2", "student3")


def gain(low: float, middle: float, high: float) -> dict[str, float]:
    return {"validation_gain": middle, "validation_gain_low": low, "validation_gain_high": high, "coverage": 0.5}


@pytest.fixture
def evaluation(tmp_path: Path) -> Path:
    """Round 2 does not beat round 1; round 3 beats round 2, but lies beyond the stop; round 2 is the best."""
    write_run(tmp_path, "teacher", None, validation_accuracy=0.90, validation_nll=0.3)
    write_run(tmp_path, "student1", "teacher", validation_accuracy=0.94, validation_nll=0.2, **gain(0.01, 0.04, 0.07))
    best = {"validation_accuracy_low": 0.93, "validation_accuracy_high": 0.97, "validation_nll": 0.1}
    write_run(tmp_path, "student2", "student1", validation_accuracy=0.95, **best, **gain(-0.01, 0.01, 0.03))
    write_run(tmp_path, "student3", "student2", validation_accuracy=0.95, validation_nll=0.2, **gain(0.0, 0.02, 0.04))
    return tmp_path


def test_runs_that_name_each_other_as_teachers_are_shown_all_the_same(tmp_path: Path) -> None:
    """Names were changed in params.yaml, and one of the two runs was made again."""
    write_run(tmp_path, "student1", "student2", validation_accuracy=0.94, **gain(0.01, 0.04, 0.07))
    write_run(tmp_path, "student2", "student1", validation_accuracy=0.95, **gain(-0.01, 0.01, 0.03))
    runs = load_runs(tmp_path)
    assert {run.name for run in runs} == {"student1", "student2"}
    assert not any(chain_saw(run, "test", runs) for run in runs)


def test_the_stop_rule_marks_the_rounds_beyond(evaluation: Path) -> None:
    runs = load_runs(evaluation)
    found = verdicts(runs)
    assert {name: (verdict.beats_teacher, verdict.after) for name, verdict in found.items()} == {
        "student1": (True, None),
        "student2": (False, None),
        "student3": (False, "student2"),
    }
    assert stop_lines(runs) == [
        "student2 does not beat student1 on validation by more than its interval (+1.0%, -1.0% to +3.0%); "
        "beyond the stop: student3"
    ]


def test_the_summary_says_where_to_stop(evaluation: Path, capsys: pytest.CaptureFixture[str]) -> None:
    print_summary(evaluation, ["teacher", "student1", "student2", "student3"], Path("reports"))
    assert "stop rule: student2 does not beat student1 on validation" in capsys.readouterr().out


def test_the_best_is_not_the_last(evaluation: Path) -> None:
    assert best_run(load_runs(evaluation)).name == "student2"


def test_a_smaller_student_need_not_beat_its_teacher(evaluation: Path) -> None:
    path = evaluation / "student2" / "details" / "run.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"parameters": 10, "teacher_parameters": 40}))
    runs = load_runs(evaluation)
    assert set(verdicts(runs)) == {"student1", "student3"}
    assert stop_lines(runs) == [
        "student3 does not beat student2 on validation by more than its interval (+2.0%, +0.0% to +4.0%)"
    ]


def test_runs_that_saw_held_out_images_are_neither_chosen_nor_judged(evaluation: Path) -> None:
    def resplit(run: str, *splits: str) -> None:
        path = evaluation / run / "details" / "run.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"train": {"resplit": {"splits": splits}}}))

    resplit("student1", "labeled", "validation")
    runs = load_runs(evaluation)
    assert set(verdicts(runs)) == set(), "no round after it can be judged on validation"
    assert best_run(runs).name == "student2", "labels alone may have come through it"
    resplit("student2", "labeled", "test")
    assert best_run(load_runs(evaluation)).name == "teacher"


def test_adopted_runs_are_not_the_best_and_tell_what_they_saw(evaluation: Path) -> None:
    def tell(run: str, **record: object) -> None:
        path = evaluation / run / "details" / "run.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | record))

    tell("student2", algorithm="adopt")
    assert best_run(load_runs(evaluation)).name == "student3"
    tell("student2", saw=["labeled", "test"])
    runs = load_runs(evaluation)
    assert [run.name for run in runs if chain_saw(run, "test", runs)] == ["student2", "student3"]
    assert best_run(runs).name == "student1"
