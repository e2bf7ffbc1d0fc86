"""The whole project through DVC, in real processes, on a copy of the repository with fewer steps."""

import json
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import time
from pathlib import Path

import pytest
import yaml

from tests.repository import BIN, Project

RESULTS = ["review@noisy_student", "report@noisy_student", "best@noisy_student"]
CODE = "code@src/selftrain"
ROUND_2 = [CODE, "select@student2", "train@student2", "predict@student2", "evaluate@student2", *RESULTS]


@pytest.fixture(scope="module")
def project(reproduced_once: Path, tmp_path_factory: pytest.TempPathFactory) -> Project:
    folder = tmp_path_factory.mktemp("repository") / "selftrain"
    shutil.copytree(reproduced_once, folder)
    return Project(folder)


@pytest.mark.slow
def test_a_second_repro_does_nothing(project: Project) -> None:
    assert project.repro() == []


@pytest.mark.slow
def test_the_doctor_looks_into_dvcs_cache_and_says_what_would_run(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from selftrain.doctor import examine
    from selftrain.plumbing.dvc_state import damaged_objects, would_run
    from selftrain.project import Project as Workspace

    folder = tmp_path / "copy"
    shutil.copytree(project.folder, folder)
    monkeypatch.chdir(folder)
    assert damaged_objects() == []
    assert would_run() == {}
    (selected,) = yaml.safe_load(Path("dvc.lock").read_text())["stages"]["select@student2"]["outs"]
    selection = Path(".dvc/cache/files/md5", selected["md5"][:2], selected["md5"][2:])
    part = next(entry for entry in json.loads(selection.read_bytes()) if entry["relpath"].endswith("00.parquet"))
    stored = Path(".dvc/cache/files/md5", part["md5"][:2], part["md5"][2:])
    for damaged in (stored, selection):
        damaged.chmod(0o644)
        damaged.write_bytes(damaged.read_bytes()[:-1] + b"x")
        assert damaged in [path.relative_to(folder) if path.is_absolute() else path for path, _ in damaged_objects()]
    assert any("DVC's copy of" in trouble.what for trouble in examine(Workspace.open()))
    params = yaml.safe_load(Path("params.yaml").read_text())
    params["rounds"]["student2"]["select"] = {"threshold": 0.2}
    Path("params.yaml").write_text(yaml.safe_dump(params))
    assert set(would_run()["select@student2"]) == {
        "rounds.student2.select of params.yaml is modified",
        f"{selected['path']} is not in cache",
    }


@pytest.mark.slow
def test_everything_is_accounted_for(project: Project) -> None:
    import polars as pl

    corpus = json.loads((project.folder / "data/corpus/summary.json").read_text())["unlabeled"]
    assert corpus["found"] == corpus["images"] + corpus["quarantined"] + corpus["listed_twice"]
    assert corpus["found"] == len(list((project.folder / "data/digits/unlabeled").rglob("*.png")))
    manifest = pl.read_parquet(project.folder / "data/corpus/unlabeled/manifest/*.parquet")
    for run in ("teacher", "student1"):
        predicted = pl.read_parquet(project.folder / f"predictions/noisy_student/{run}/unlabeled/*.parquet")
        assert predicted["key"].to_list() == manifest["key"].to_list()
    for round_ in ("student1", "student2"):
        selected = pl.read_parquet(project.folder / f"selections/noisy_student/{round_}/*.parquet")
        assert selected["key"].to_list() == manifest["key"].to_list()
        metrics = json.loads((project.folder / f"evaluation/noisy_student/{round_}/metrics.json").read_text())
        assert sum(metrics["decisions"].values()) == corpus["images"]
        assert metrics["balanced"] == selected["copies"].sum()


@pytest.mark.slow
def test_mlflow_has_a_run_for_each_training_with_its_figures(project: Project) -> None:
    assert project.runs() == [("student1", "FINISHED"), ("student2", "FINISHED"), ("teacher", "FINISHED")]
    with sqlite3.connect(project.folder / "mlflow.db") as connection:
        tags = dict(
            connection.execute("select key, value from tags join runs using (run_uuid) where name = 'student2'")
        )
        teacher = connection.execute("select run_uuid from runs where name = 'student1'").fetchone()[0]
        names = {name for (name,) in connection.execute("select distinct key from latest_metrics")}
        inputs = connection.execute("select count(*) from inputs").fetchone()[0]
    assert (tags["pipeline"], tags["round"], tags["teacher_run_id"]) == ("noisy_student", "student2", teacher)
    commits = project.run("git", "log", "--format=%H").split()
    assert tags["mlflow.source.git.commit"].removesuffix("+changes") in commits
    assert {"loss", "labeled_loss", "unlabeled_loss", "student_learning_rate", "images_per_second"} <= names
    assert {"test_accuracy", "coverage", "pseudo_label_accuracy", "mcnemar_p"} <= names
    assert inputs == 2 + 4 + 4
    charts = {path.name for path in project.folder.rglob("artifacts/charts/*.svg")}
    assert charts == {
        f"{name}.svg"
        for name in (
            "accuracy",
            "calibration",
            "confusion",
            "precision",
            "precision_by_class",
            "confidence",
            "thresholds",
            "balance",
        )
    }


@pytest.mark.slow
def test_the_report_needs_no_other_file(project: Project) -> None:
    page = (project.folder / "reports" / "noisy_student" / "index.html").read_text()
    assert "http://" not in page.replace("http://www.w3.org", "").replace("http://purl.org", "").replace(
        "http://creativecommons.org", ""
    )
    assert "https://" not in page
    read = re.findall(r"""(?:src|href)=["']([^"']*)["']|url\(["']?([^)"']*)""", page)
    assert {re.match(r"data:|#", link or url) is not None for link, url in read} == {True}
    assert 'src="data:image/png;base64,' in page
    for word in (
        "student2", "surest", "least sure kept", "flipped", "McNemar", "How good are the labels?", "Look here first",
        "student1 → student2", "Lineage", "suspected out of domain",
    ):  # fmt: skip
        assert word in page
    assert len(page) < 10_000_000


@pytest.mark.slow
def test_what_dvc_shows_is_worth_reading(project: Project) -> None:
    shown = project.run("dvc", "metrics", "show")
    assert "test_accuracy" in shown
    assert "evaluation/noisy_student/student2/metrics.json" in shown
    project.run("dvc", "plots", "show", "-o", "dvc_plots")
    page = (project.folder / "dvc_plots" / "index.html").read_text()
    assert "calibration on test" in page
    assert "evaluation_noisy_student_student2_thresholds_csv" in page


@pytest.mark.slow
def test_only_what_a_change_concerns_runs_again(project: Project) -> None:
    project.change({"per_class": 20}, "rounds", "student2", "select")
    assert "rounds.student2.select.per_class" in project.run("dvc", "params", "diff")
    assert sorted(project.repro()) == sorted(ROUND_2)
    assert "coverage" in project.run("dvc", "metrics", "diff")
    before = (project.folder / "models/noisy_student/student2/run.json").read_text()
    project.run("git", "checkout", "params.yaml")
    ran = project.repro()
    assert not any(stage.startswith(("train", "select")) for stage in ran), "restored from the cache"
    restored = (project.folder / "models/noisy_student/student2/run.json").read_text()
    assert restored != before
    assert json.loads(restored)["mlflow_run_id"] != json.loads(before)["mlflow_run_id"], (
        "points at the run that made it"
    )


def edit(path: Path, before: str, after: str) -> None:
    text = path.read_text()
    assert before in text
    path.write_text(text.replace(before, after, 1))


@pytest.mark.slow
def test_a_change_of_the_program_reruns_what_it_concerns(project: Project) -> None:
    source = project.folder / "src" / "selftrain"
    # A docstring, a comment and what is printed change no result, wherever they are.
    edit(source / "training" / "loop.py", '"""The training loop. It knows no algorithm by name."""', '"""The loop."""')
    edit(source / "selection" / "balance.py", "import math", "# Rounds up.\nimport math")
    edit(source / "report" / "build.py", "too large with pictures of", "larger than it may be with pictures of")
    edit(source / "tables" / "predictions.py", "no predictions there; run", "there are no predictions; run")
    assert project.repro() == [CODE]
    # A policy that no run names gets an operation.
    edit(source / "images" / "policies" / "full.py", '    "rotate",\n', '    "rotate",\n    "invert",\n')
    assert project.repro() == [CODE]
    # Words of the page make the page anew, and nothing else.
    edit(source / "report" / "template.html", "<h2", '<h2 class="changed"')
    assert project.repro() == [CODE, "report@noisy_student"]
    # An algorithm trains its own runs again: not the teacher, which is supervised.
    edit(source / "algorithms" / "noisy_student.py", "class NoisyStudent(", "ADDED = 1\n\n\nclass NoisyStudent(")
    ran = project.repro()
    assert ran[0] == CODE
    assert [stage for stage in ran if stage.startswith("train")] == ["train@student1", "train@student2"]
    project.run("git", "checkout", "src")
    project.repro()


@pytest.mark.slow
def test_a_killed_repro_goes_on(project: Project) -> None:
    project.change(150, "rounds", "student2", "train", "steps")
    checkpoints = project.folder / ".selftrain" / "checkpoints" / "noisy_student" / "student2"
    known = set(checkpoints.glob("*"))
    process = subprocess.Popen(
        [str(BIN / "dvc"), "repro"],
        cwd=project.folder,
        env=project.environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and not any(
        path for folder in set(checkpoints.glob("*")) - known for path in folder.glob("*/step-*")
    ):
        time.sleep(0.1)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    ran = project.repro()
    assert ran[0] == "train@student2"
    run = json.loads((project.folder / "models/noisy_student/student2/run.json").read_text())
    assert run["steps"] == 150
    with sqlite3.connect(project.folder / "mlflow.db") as connection:
        query = "select step from metrics where key = 'loss' and run_uuid = ? order by step"
        steps = [step for (step,) in connection.execute(query, [run["mlflow_run_id"]])]
    assert steps == list(range(10, 151, 10)), "one run, every point once"
    assert project.repro() == []


STUDY = """
tiny:
  question: Does it run?
  source: nowhere
  expected: "yes"
  measure: [student1]
  seeds: [0]
  arms:
    as it is: {}
    hard: {set: {rounds: {student1: {train: {algorithm: {labels: hard}, steps: 20}}}}}
"""


@pytest.mark.slow
def test_a_study_runs_its_arms_beside_the_workspace(project: Project) -> None:
    folder = project.folder
    (folder / "pipelines" / "noisy_student").mkdir(parents=True)
    (folder / "pipelines" / "noisy_student" / "studies.yaml").write_text(STUDY)
    project.run("git", "add", "-A")
    project.run("git", "commit", "-q", "-m", "a study")
    params, lock = (folder / "params.yaml").read_bytes(), (folder / "dvc.lock").read_bytes()
    model = (folder / "models" / "noisy_student" / "student1" / "model.safetensors").read_bytes()
    printed = project.run("selftrain", "study", "tiny")
    assert "tiny-hard-0: done" in printed
    assert "less the first, paired" in printed
    assert (folder / "params.yaml").read_bytes() == params
    assert (folder / "dvc.lock").read_bytes() == lock
    assert (folder / "models" / "noisy_student" / "student1" / "model.safetensors").read_bytes() == model
    query = "select e.name, r.name, r.status from runs r join experiments e using (experiment_id) where e.name like 'selftrain studies%'"
    with sqlite3.connect(folder / "mlflow.db") as connection:
        rows = sorted(connection.execute(query).fetchall())
    arms = [row for row in rows if row[0] == "selftrain studies"]
    assert [row[1:] for row in arms] == [
        ("tiny: as it is (student1, seed 0)", "FINISHED"),
        ("tiny: hard (student1, seed 0)", "FINISHED"),
    ]
    # What the arms share came from DVC's cache: only the arm that differs was trained.
    assert [row[1] for row in rows if row[0] != "selftrain studies"] == ["student1"]
    assert "done" not in project.run("selftrain", "study", "tiny"), "what MLflow has is not run again"
