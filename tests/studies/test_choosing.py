"""The comparison of every algorithm, from a real MLflow."""

import math
from pathlib import Path

import polars as pl
import pytest

from selftrain.check import check_project
from selftrain.learning.algorithm import find_algorithm
from selftrain.params.runs import all_runs, train_config
from selftrain.plumbing.by_name import known_modules
from selftrain.plumbing.errors import UserError
from selftrain.plumbing.sections import load_params
from selftrain.plumbing.tracking import connect
from selftrain.project import Project
from selftrain.studies.choosing import (
    CONDITIONS,
    MEASURES,
    PIPELINE,
    choosing_runs,
    compared,
    experiment_of,
    markdown,
    with_runs,
    write_comparison,
)
from tests.repository import ROOT

PARAMS = ROOT / "pipelines" / PIPELINE / "params.yaml"
ACCURACY = {"supervised": [0.80, 0.90, 0.85], "fixmatch": [0.85, 0.95, 0.90], "uda": [0.79, 0.95, 0.84]}


@pytest.fixture
def recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    client, experiment = connect(experiment_of("base"))
    for name, accuracies in ACCURACY.items():
        for seed, accuracy in enumerate(accuracies):
            for again in (0.5, accuracy):  # the newest of a name and seed counts
                run = client.create_run(experiment, tags={"pipeline": PIPELINE, "round": name})
                client.log_param(run.info.run_id, "seed", seed)
                for measure in MEASURES[:1] if name == "uda" else MEASURES:
                    client.log_metric(run.info.run_id, measure.metric, again)
                client.set_terminated(run.info.run_id)
    trained = client.create_run(experiment, tags={"pipeline": PIPELINE, "round": "fixmatch"})
    client.log_param(trained.info.run_id, "seed", 3)
    client.set_terminated(trained.info.run_id)
    running = client.create_run(experiment, tags={"pipeline": PIPELINE, "round": "killed"})
    client.log_param(running.info.run_id, "seed", 0)


@pytest.mark.parametrize("condition", CONDITIONS)
def test_a_conditions_pipeline_is_whole(condition: str) -> None:
    params = load_params(PARAMS)
    if (runs := CONDITIONS[condition].runs) is not None:
        params = with_runs(params, runs)
    project = Project(ROOT, PARAMS, params)
    check_project(project, paths=False)
    assert project.runs.keys() == project.config.tested.keys()
    assert runs is None or set(runs) == project.runs.keys()


def test_the_table_is_paired_by_seed(recorded: None) -> None:
    table = compared(choosing_runs("base").drop_nulls("test_accuracy"))
    assert table["run"].to_list() == ["fixmatch", "uda", "supervised"]
    rows = {row["run"]: row for row in table.iter_rows(named=True)}
    assert rows["fixmatch"]["test_accuracy"] == pytest.approx(0.9)
    # Student's t with two degrees of freedom: 4.3027 · 0.05 / √3.
    assert rows["fixmatch"]["test_accuracy_half"] == pytest.approx(4.302653 * 0.05 / math.sqrt(3))
    assert rows["fixmatch"]["gain"] == pytest.approx(0.05)
    assert rows["fixmatch"]["gain_half"] == pytest.approx(0, abs=1e-9)
    assert [rows[name]["told_apart"] for name in ("fixmatch", "uda", "supervised")] == [True, False, False]
    assert rows["uda"]["train_seconds"] is None
    assert rows["fixmatch"]["train_seconds"] == 0.85, "the least: a busy machine adds to the others"
    text = markdown(table)
    assert "| fixmatch | 90.0 ± 12.4 |" in text
    assert "**+5.0 ± 0.0**" in text
    assert "| uda | 86.0 ± 20.3 | – | – | – |" in text
    others = compared(choosing_runs("base").drop_nulls("test_accuracy"), "uda")
    assert dict(others.select("run", "gain").iter_rows())["supervised"] == pytest.approx(-0.01)
    assert "over uda, points" in markdown(table, "uda")


def test_the_command_writes_a_page_a_picture_and_a_table(recorded: None, tmp_path: Path) -> None:
    page = write_comparison(tmp_path / "out")
    assert (tmp_path / "out" / "choosing.md").read_text() == page
    assert page.count("Not run yet") == len(CONDITIONS) - 1
    assert "| 3 |" in page, "seeds"
    assert "Left out: 1 runs that are trained and not evaluated yet." in page
    svg = (tmp_path / "out" / "base.svg").read_text()
    assert svg.startswith("<svg")
    assert "error under corruptions" in svg
    assert pl.read_csv(tmp_path / "out" / "base.csv")["run"].to_list() == ["fixmatch", "uda", "supervised"]


def test_a_condition_without_evaluations_is_told(recorded: None, tmp_path: Path) -> None:
    client, experiment = connect(experiment_of("few_labels"))
    run = client.create_run(experiment, tags={"pipeline": PIPELINE, "round": "fixmatch"})
    client.log_param(run.info.run_id, "seed", 0)
    client.set_terminated(run.info.run_id)
    assert "## 2 labels a class\n\nNot evaluated yet: 1 trained runs." in write_comparison(tmp_path / "out")


def test_an_unknown_reference_is_told(recorded: None, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has no evaluated run 'fixmach'; did you mean 'fixmatch'"):
        write_comparison(tmp_path / "out", "fixmach")


def test_nothing_recorded_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    with pytest.raises(UserError, match="run `make choosing`"):
        write_comparison(tmp_path / "out")


def test_every_algorithm_is_compared_at_the_same_steps_of_the_student() -> None:
    params = load_params(PARAMS)
    runs = [run for run in all_runs(params, "p") if run != "teacher"]
    configs = {run: train_config(params, run, "p") for run in runs}
    # One without steps has none to compare at.
    known = {name for name in known_modules("algorithms") if not find_algorithm(name, {})[0].closed_form}
    assert {config.algorithm.name for config in configs.values()} == known
    for run, config in configs.items():
        waiting = config.algorithm.parameters.get("student_wait_steps", 0)
        later = sum(phase["steps"] for phase in config.then.values())
        assert config.steps is not None
        assert config.steps - waiting + later == 200, run
        assert config.batch_size * (1 + config.unlabeled_ratio) == 128, run
    assert set(CONDITIONS["few_labels"].runs or ()) <= {*runs, "teacher"}
