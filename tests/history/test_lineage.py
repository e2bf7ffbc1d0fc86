"""A model's line, on a small project that DVC made: what is as recorded, what is missing, what has changed."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from selftrain.history.lineage import Link, recorded, trace
from selftrain.plumbing.errors import UserError
from selftrain.tables.manifest import manifest_digest
from selftrain.tables.predictions import made_from_digest, made_from_text, read_part, write_part
from selftrain.tables.records import RunRecord
from selftrain.tables.selection import selection_digest


@pytest.fixture
def project(digits_rounds: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A teacher and a student of the digits, with the records that training writes."""
    shutil.copytree(digits_rounds / "data" / "corpus", tmp_path / "data" / "corpus")
    shutil.copytree(digits_rounds / "selections" / "noisy_student" / "student1", tmp_path / "selections" / "student1")
    monkeypatch.chdir(tmp_path)
    corpus = Path("data/corpus")
    weights = {}
    for run in ("teacher", "student1"):
        folder = Path("models") / run
        folder.mkdir(parents=True)
        (folder / "model.safetensors").write_bytes(run.encode())
        weights[run] = hashlib.sha256(run.encode()).hexdigest()
    for part in sorted((digits_rounds / "predictions" / "noisy_student" / "teacher" / "unlabeled").iterdir()):
        shard = int(part.stem.removeprefix("part-"))
        made = made_from_text(weights["teacher"], "code", "images")
        write_part(Path("predictions/teacher/unlabeled"), shard, read_part(part), [str(n) for n in range(10)], made)
    splits = {split: manifest_digest(corpus / split) for split in ("labeled", "validation")}
    common: dict[str, Any] = {"mlflow_run_id": "m", "git_commit": "c", "train": {}}
    teacher = common | {
        "run": "teacher",
        "teacher": None,
        "data": splits,
        "paths": {"corpus": str(corpus)},
        "teacher_weights": "",
    }
    data = splits | {
        "unlabeled": manifest_digest(corpus / "unlabeled"),
        "selection": selection_digest(Path("selections/student1")),
        "predictions": made_from_digest(Path("predictions/teacher/unlabeled")),
    }
    paths = {
        "corpus": str(corpus), "selection": "selections/student1", "predictions": "predictions/teacher/unlabeled",
        "teacher": "models/teacher",
    }  # fmt: skip
    student = common | {"run": "student1", "teacher": "teacher", "data": data, "paths": paths}
    Path("models/teacher/run.json").write_text(json.dumps(teacher))
    Path("models/student1/run.json").write_text(json.dumps(student | {"teacher_weights": weights["teacher"]}))
    return tmp_path


def broken(line: Link) -> list[tuple[str, str]]:
    return sorted({(link.kind, link.state) for link in line.all() if link.state != "found"})


def test_a_line_goes_back_to_the_shards(project: Path) -> None:
    line = trace(Path("models/student1"))
    assert broken(line) == []
    kinds = [link.kind for link in line.made_from]
    assert kinds == ["labeled", "validation", "unlabeled", "selection", "predictions", "teacher"]
    teacher = line.made_from[-1]
    assert (teacher.path, [link.kind for link in teacher.made_from]) == ("models/teacher", ["labeled", "validation"])
    assert broken(trace(Path("models/student1"), deep=True)) == []


def flip_a_byte(path: Path, at: int = -100) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(bytes(data))


@pytest.mark.parametrize(
    ("harm", "deep", "expected"),
    [
        (lambda: shutil.rmtree("selections/student1"), False, ("selection", "missing")),
        (lambda: [path.unlink() for path in Path("selections/student1").iterdir()], False, ("selection", "missing")),
        (
            lambda: [path.unlink() for path in Path("predictions/teacher/unlabeled").iterdir()],
            False,
            ("predictions", "missing"),
        ),
        (lambda: shutil.rmtree("models/teacher"), False, ("teacher", "missing")),
        (lambda: shutil.rmtree("predictions/teacher"), False, ("predictions", "missing")),
        (lambda: shutil.rmtree("data/corpus/unlabeled"), False, ("unlabeled", "missing")),
        (lambda: next(Path("data/corpus/unlabeled").glob("*.tar")).unlink(), False, ("unlabeled", "changed")),
        (lambda: next(Path("data/corpus/labeled").glob("*.tar")).write_bytes(b""), False, ("labeled", "changed")),
        (lambda: Path("models/teacher/model.safetensors").write_bytes(b"other"), False, ("teacher", "changed")),
        (lambda: flip_a_byte(next(Path("data/corpus/labeled").glob("*.tar")), 600), True, ("labeled", "changed")),
    ],
)
def test_a_missing_or_changed_link_is_told(project: Path, harm: Any, deep: bool, expected: tuple[str, str]) -> None:
    harm()
    assert expected in broken(trace(Path("models/student1"), deep))


def test_another_selection_and_another_table_are_told(project: Path, digits_rounds: Path) -> None:
    shutil.rmtree("selections/student1")
    shutil.copytree(digits_rounds / "selections" / "noisy_student" / "student2", "selections/student1")
    shutil.rmtree("predictions/teacher")
    shutil.copytree(digits_rounds / "predictions" / "noisy_student" / "student1", "predictions/teacher")
    found = {link.kind: link for link in trace(Path("models/student1")).all() if link.state == "changed"}
    assert set(found) == {"selection", "predictions"}
    assert "another selection lies there now" in found["selection"].trouble
    assert "made by another model than the teacher" in found["predictions"].trouble


def test_the_command_prints_the_tree_and_fails_if_it_is_broken(project: Path) -> None:
    import mlflow

    uri = f"sqlite:///{project}/mlflow.db"
    client = mlflow.MlflowClient(uri)
    run_id = client.create_run(client.create_experiment("selftrain")).info.run_id
    environment = os.environ | {
        f"GIT_{who}_{what}": "t@t" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")
    }
    environment["MLFLOW_TRACKING_URI"] = uri

    def run(*command: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)

    run("git", "init", "-q")
    run("git", "commit", "-q", "--allow-empty", "-m", "one")
    commit = run("git", "rev-parse", "HEAD").stdout.strip()
    for name in ("teacher", "student1"):
        path = Path(f"models/{name}/run.json")
        path.write_text(
            json.dumps(json.loads(path.read_text()) | {"mlflow_run_id": run_id, "git_commit": f"{commit}+changes"})
        )
    command = [sys.executable, "-m", "selftrain", "lineage", "models/student1"]
    whole = run(*command)
    assert whole.returncode == 0, whole.stdout + whole.stderr
    assert "every link is as it was recorded" in whole.stdout
    assert f"git {commit[:10]}+changes" in whole.stdout
    path = Path("models/teacher/run.json")
    path.write_text(json.dumps(json.loads(path.read_text()) | {"mlflow_run_id": "gone", "git_commit": "0" * 40}))
    lost = run(*command)
    assert lost.returncode == 1
    assert "MLflow gone (not there)" in lost.stdout
    assert "missing: 1 MLflow runs are not in this MLflow" in lost.stdout
    assert "missing: 1 commits are not in this repository" in lost.stdout
    assert "every link" not in lost.stdout
    shutil.rmtree("models/teacher")
    assert (
        "missing: teacher models/teacher: the model is not there; `dvc checkout` or `dvc pull` brings it"
        in run(*command).stdout
    )


def test_a_model_that_is_not_what_its_run_exported_is_told(project: Path) -> None:
    path = Path("models/student1/run.json")
    path.write_text(json.dumps(json.loads(path.read_text()) | {"weights": hashlib.sha256(b"student1").hexdigest()}))
    assert broken(trace(Path("models/student1"))) == []
    Path("models/student1/model.safetensors").write_bytes(b"tampered")
    assert broken(trace(Path("models/student1"))) == [("model", "changed")]


def test_the_corrections_of_a_selection_are_part_of_the_line(project: Path) -> None:
    summary = Path("selections/student1/summary.json")
    Path("corrections.parquet").write_bytes(b"x")
    digest = hashlib.sha256(b"x").hexdigest()[:32]
    told = {"corrections": {"path": "corrections.parquet", "digest": digest}}
    summary.write_text(json.dumps(json.loads(summary.read_text()) | told))
    assert "corrections" in {link.kind for link in trace(Path("models/student1")).all()}
    assert broken(trace(Path("models/student1"))) == []
    Path("corrections.parquet").write_bytes(b"y")
    assert broken(trace(Path("models/student1"))) == [("corrections", "changed")]
    Path("corrections.parquet").unlink()
    assert broken(trace(Path("models/student1"))) == [("corrections", "missing")]


def test_weights_that_a_run_started_from_are_part_of_the_line(project: Path) -> None:
    start = Path("elsewhere/model.safetensors")
    start.parent.mkdir()
    start.write_bytes(b"before")
    path = Path("models/teacher/run.json")
    values = json.loads(path.read_text())
    values["data"]["weights"] = hashlib.sha256(b"before").hexdigest()
    values["paths"]["weights"] = str(start)
    path.write_text(json.dumps(values))
    assert broken(trace(Path("models/student1"))) == []
    assert "weights" in [link.kind for link in recorded(RunRecord.read(path), {}, "teacher").all()]
    start.write_bytes(b"after")
    assert broken(trace(Path("models/student1"))) == [("weights", "changed")]
    start.unlink()
    assert broken(trace(Path("models/student1"))) == [("weights", "missing")]


def test_what_is_recorded_needs_nothing_but_the_records(project: Path) -> None:
    records = {run: RunRecord.read(Path(f"models/{run}/run.json")) for run in ("teacher", "student1")}
    shutil.rmtree("data")
    line = recorded(records["student1"], records, "student1")
    assert {link.state for link in line.all()} == {"recorded"}
    assert [link.kind for link in line.made_from][-1] == "teacher"
    with pytest.raises(UserError, match="no run.json there"):
        trace(Path("data"))
