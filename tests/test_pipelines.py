"""Pipelines beside the main job, on a copy of the repository with fewer steps; one of them through DVC."""

import json
import re
import shutil
import sqlite3

import numpy as np
import pytest
import yaml

from tests.repository import ROOT, Project, copy_of_repository, run_in_process

LITE = "noisy_student_lite"
META = "meta_pseudo_labels"


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The repository with its pipelines, shortened."""
    folder = tmp_path_factory.mktemp("pipelines") / "selftrain"
    made = copy_of_repository(folder)
    shutil.copytree(ROOT / "pipelines", folder / "pipelines", ignore=shutil.ignore_patterns("dvc.lock", ".gitignore"))
    lite = folder / "pipelines" / LITE / "params.yaml"
    params = yaml.safe_load(lite.read_text())
    params["runs"] = ["teacher", "labeling_teacher", "labeling_teacher_leaky", "noisy_student", "noisy_student_leaky"]
    params["train"]["epochs"] = 2
    params["tested"] = {run: f"{LITE}/{run}" for run in params["runs"]}
    for name in ("student", "student_leaky"):
        del params["rounds"][name]
    for entry in params["rounds"].values():
        entry["train"]["epochs"] = 1
        entry["train"]["then"]["labeled"]["epochs"] = 1
    params["hardware"] = {"threads": 1, "workers": 0}
    lite.write_text(yaml.safe_dump(params, sort_keys=False))
    meta = folder / "pipelines" / META / "params.yaml"
    params = yaml.safe_load(meta.read_text())
    params["runs"].remove("noisy_student")
    del params["rounds"]["noisy_student"]
    params["train"]["validate_every"] = 10
    params["supervised"]["teacher"]["train"]["steps"] = 40
    own = params["rounds"][META]["train"]
    own["steps"], own["then"]["finetune"]["steps"], own["algorithm"]["student_wait_steps"] = 20, 5, 8
    params["hardware"] = {"threads": 1, "workers": 0}
    meta.write_text(yaml.safe_dump(params, sort_keys=False))
    made.run("git", "init", "-q")
    made.run("dvc", "init", "-q")
    return made


@pytest.mark.slow
def test_the_replication_prints_its_tables_leaky_and_leak_free(project: Project) -> None:
    printed = run_in_process(project.folder, LITE)
    folder = project.folder
    tables = (folder / "replication" / LITE / "tables.md").read_text()
    assert tables in printed
    rows = {cells[1]: cells for cells in (line.split("|") for line in tables.splitlines()) if len(cells) > 3}
    assert [name.strip() for name in rows if "student" in name] == ["noisy_student", "noisy_student_leaky"]
    assert rows[" noisy_student "][-2].strip() == "66.0", "the report's, from Table 3"
    assert re.search(r"\| noisy_student \| labeling_teacher \|.*\| N/A \| 77.0 \|", tables), "and from Table 2"
    assert (
        "labeling_teacher_leaky was trained on its own cut of labeled, validation, test: it saw test images" in tables
    )
    accuracy = json.loads((folder / "evaluation" / LITE / "teacher" / "metrics.json").read_text())["test_accuracy"]
    assert f"{100 * accuracy:.1f} (" in tables
    record = json.loads((folder / "models" / LITE / "noisy_student" / "run.json").read_text())
    assert [phase["name"] for phase in record["phases"]] == ["main", "labeled"]
    assert (record["pipeline"], record["teacher"]) == (LITE, "labeling_teacher")
    best = json.loads((folder / "models" / LITE / "best" / "best.json").read_text())["run"]
    assert best in ("teacher", "noisy_student", "noisy_student_leaky"), "not one that saw validation images"


@pytest.mark.slow
def test_only_the_leaky_teacher_sees_what_the_students_are_tested_on(project: Project) -> None:
    from selftrain.images.index import load_index
    from selftrain.training.labeled_images import labeled_and_validation

    corpus = project.folder / "data" / LITE
    counts = {split: len(load_index(corpus / split)) for split in ("labeled", "validation", "test")}
    total = sum(counts.values())
    for split, share in (("labeled", 0.7), ("validation", 0.1), ("test", 0.2)):
        assert counts[split] / total == pytest.approx(share, abs=0.02)
    test = load_index(corpus / "test").keys
    for name, seen in (("labeling_teacher", 0), ("labeling_teacher_leaky", 0.7)):
        record = json.loads((project.folder / "models" / LITE / name / "run.json").read_text())
        from selftrain.params.train import Resplit

        trained, _ = labeled_and_validation(corpus, Resplit.model_validate(record["train"]["resplit"]), record["seed"])
        assert np.isin(test, trained.keys).mean() == pytest.approx(seen, abs=0.1)
        # And it is what was trained on: an epoch's length is that of these images.
        phase, train = record["phases"][0], record["train"]
        assert train["epochs"] is not None
        assert phase["planned_steps"] == round(train["epochs"] * len(trained.keys) / train["batch_size"])


@pytest.mark.slow
def test_meta_pseudo_labels_is_a_round_like_any_other(project: Project) -> None:
    project.run("dvc", "repro", f"pipelines/{META}/dvc.yaml")
    folder = project.folder
    record = json.loads((folder / "models" / META / META / "run.json").read_text())
    assert [phase["name"] for phase in record["phases"]] == ["main", "finetune"]
    assert (record["algorithm"], record["teacher"], record["learns_from_table"]) == (META, "teacher", False)
    assert (folder / "predictions" / META / META / "unlabeled").is_dir()
    page = (folder / "reports" / META / "index.html").read_text()
    assert "labels its images while it is trained" in page
    with sqlite3.connect(folder / "mlflow.db") as connection:
        query = "select key, count(*) from metrics where run_uuid = ? group by key"
        curves = dict(connection.execute(query, [record["mlflow_run_id"]]).fetchall())
    # Of 20 steps logged every 10, the student stands still in the first 8: h is there from the first window's end.
    assert curves["feedback"] == 2
    assert {"teacher_validation_accuracy", "teacher_labeled_loss", "student_labeled_loss", "peak_memory_mib"} <= set(
        curves
    )
    assert "dvc repro" not in project.run("dvc", "status", f"pipelines/{META}/dvc.yaml")
