"""Figures in a real MLflow on sqlite, and the notebook that shows them."""

import math
import os
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from selftrain.plumbing.errors import UserError
from selftrain.plumbing.tracking import connect
from selftrain.studies import results
from selftrain.studies.study import PIPELINES, load_study
from tests.repository import ROOT

VALUES = {"first": {0: 0.90, 1: 0.80, 2: 0.85}, "second": {0: 0.95, 1: 0.83, 2: 0.90}}


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder whose MLflow has a study of two arms and three seeds, one seed twice."""
    folder = tmp_path_factory.mktemp("studies")
    # Whole, since MLflow keeps one store a URI in a process, and other tests have their own `mlflow.db`.
    os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{folder}/mlflow.db"
    client, experiment = connect(results.EXPERIMENT)
    stale = {"study": "noise", "arm": "first", "seed": "7", "run": "student1", "version": "b"}
    old = client.create_run(experiment, tags=stale, start_time=5)
    client.log_metric(old.info.run_id, "test_accuracy", 0.2)
    client.set_terminated(old.info.run_id)
    killed = {"study": "noise", "arm": "second", "seed": "9", "run": "student1", "version": "c"}
    client.create_run(experiment, tags=killed, start_time=10)
    entries = [
        ("second", 0, 0.1),
        *((arm, seed, value) for arm, own in VALUES.items() for seed, value in own.items()),
    ]
    for place, (arm, seed, value) in enumerate(entries):
        tags = {"study": "noise", "arm": arm, "seed": str(seed), "run": "student1", "version": "c"}
        run = client.create_run(experiment, tags=tags, start_time=1000 + place)
        client.log_metric(run.info.run_id, "test_accuracy", value)
        client.set_terminated(run.info.run_id)
    yield folder
    del os.environ["MLFLOW_TRACKING_URI"]


def test_the_newest_figure_of_each_arm_and_seed_counts(recorded: Path) -> None:
    table = results.figures("noise", VALUES)
    found = {(arm, seed): value for arm, _, seed, value in table.iter_rows()}
    assert found == {(arm, seed): value for arm, own in VALUES.items() for seed, value in own.items()}
    (older,) = results.figures("noise", VALUES, version="b").iter_rows()
    assert older == ("first", "student1", 7, 0.2), "a version that is asked for"
    with pytest.raises(UserError, match="'third', which the others are held against, has no figure 'test_accuracy'"):
        results.figures("noise", ["third", *VALUES])
    with pytest.raises(UserError, match="MLflow has no figures of study 'noise'"):
        results.figures("noise", VALUES, version="d")
    assert results.recorded("noise", "c") == {(arm, seed, "student1") for arm in VALUES for seed in range(3)}
    assert results.recorded("noise", "d") == set()
    with pytest.raises(UserError, match="no figures of study 'ratio'; run `make study NAME=ratio`"):
        results.figures("ratio", VALUES)


def test_summaries_by_hand(recorded: Path) -> None:
    first, second = results.summary(results.figures("noise", VALUES)).iter_rows()
    t = 4.302652729911275  # 97.5% of Student's t with two degrees of freedom
    assert first[2] == pytest.approx(0.85)
    assert first[3] == pytest.approx(t * 0.05 / math.sqrt(3))
    assert first[4:6] == (0.0, 0.0)
    gains = [0.05, 0.03, 0.05]
    mean = sum(gains) / 3
    deviation = math.sqrt(sum((gain - mean) ** 2 for gain in gains) / 2)
    assert second[4] == pytest.approx(mean)
    assert second[5] == pytest.approx(t * deviation / math.sqrt(3))
    assert math.isnan(results.estimate([0.3]).half)


@pytest.mark.slow
def test_the_notebook_runs_and_shows_what_there_is(recorded: Path) -> None:
    notebook = nbformat.read(ROOT / "notebooks" / "04_studies.ipynb", as_version=4)
    study, _ = load_study("noise", ROOT / PIPELINES)
    arms = dict(zip(VALUES, list(study.arms)[:2], strict=True))
    client, experiment = connect(results.EXPERIMENT)
    for run in client.search_runs([experiment], "tags.study = 'noise'"):
        client.set_tag(run.info.run_id, "arm", arms[run.data.tags["arm"]])
    (recorded / "pipelines").unlink(missing_ok=True)
    (recorded / "pipelines").symlink_to(ROOT / "pipelines")
    NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(recorded)}}).execute()
    outputs = notebook.cells[-1].outputs
    assert sum("image/svg+xml" in output.get("data", {}) for output in outputs) == 1, outputs
    assert sum("no figures of study" in output.get("text", "") for output in outputs) >= 1
    assert "student without augmentation" in str(outputs)
