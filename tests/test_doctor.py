"""`selftrain doctor` on a workspace in which everything is wrong."""

import os
import shutil
from pathlib import Path

import pytest

from selftrain.doctor import Trouble, examine
from selftrain.plumbing.dvc_lock import maker_of
from selftrain.plumbing.errors import UserError
from selftrain.plumbing.files import HERE, read_json, write_json
from selftrain.plumbing.tracking import connect
from selftrain.project import Project
from selftrain.training.checkpoint import save_checkpoint
from tests.training.project import selftrain, write_project


def flip(path: Path, place: int) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)


@pytest.fixture
def folder(digits_corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with a corpus of its own, a teacher, its table, a selection and two checkpoints."""
    folder = tmp_path / "p"
    write_project(folder, digits_corpus)
    (folder / "data" / "corpus").unlink()
    shutil.copytree(digits_corpus, folder / "data" / "corpus")
    monkeypatch.chdir(folder)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder}/mlflow.db")
    for step in (1, 2):
        save_checkpoint(
            folder / ".selftrain" / "checkpoints" / "noisy_student" / "student" / "v" / "main", step, {"a": 1}
        )
    return folder


def troubles(folder: Path) -> list[Trouble]:
    return list(examine(Project.open(folder)))


def test_every_trouble_is_named_once_and_what_is_safe_is_mended(folder: Path) -> None:
    assert troubles(folder) == []
    flip(folder / "data" / "corpus" / "unlabeled" / "shard-00000000.tar", 530)
    flip(folder / "predictions" / "noisy_student" / "teacher" / "unlabeled" / "part-00000000.parquet", 200)
    flip(folder / "selections" / "noisy_student" / "student" / "part-00000000.parquet", 200)
    teacher = folder / "models" / "noisy_student" / "teacher"
    write_json(teacher / "run.json", read_json(teacher / "run.json", "") | {"weights": "0" * 64})
    flip(next((folder / ".selftrain" / "checkpoints").rglob("step-0000000002.safetensors")), 60)
    (folder / "models" / f".tmp-4194305.{HERE}-model").write_text("half")
    (folder / "models" / f".tmp-{os.getpid()}.{HERE}-model").write_text("a living process writes it")
    (folder / "models" / ".tmp-4194305.elsewhere-model").write_text("another machine may write it")
    for own in (".tmp-holiday", ".tmp-mine.jpg"):
        (folder / "data" / own).mkdir()
    half = folder / "models" / "noisy_student" / ".tmp-teacher"
    half.mkdir()
    (half / ".tmp-4194305-config.json").write_text("half")
    (folder / ".dvc" / "tmp").mkdir(parents=True)
    (folder / ".dvc" / "tmp" / "rwlock").write_text('{"models": {"wri')
    client, experiment = connect()
    run = client.create_run(experiment, tags={"pipeline": "noisy_student", "round": "student"})
    found = troubles(folder)
    for expected in (
        "shard-00000000.tar: the image at byte 512 is not the one that was ingested",
        "predictions/noisy_student/teacher/unlabeled/part-00000000.parquet: the table cannot be read",
        "selections/noisy_student/student/part-00000000.parquet: the table cannot be read",
        "model.safetensors: not the weights that",
        "step-0000000002.safetensors: damaged",
        f".tmp-4194305.{HERE}-model: left by a killed process",
        "models/noisy_student/.tmp-teacher: left by a killed process",
        "rwlock: half-written by a killed DVC",
        f"MLflow: the run student ({run.info.run_id}) is RUNNING, and no process trains it",
    ):
        assert sum(expected in trouble.what for trouble in found) == 1, expected
    assert len(found) == 9
    printed = selftrain(folder, "doctor", "--fix")
    assert printed.returncode == 1
    assert printed.stdout.count("mended: ") == 7
    assert "2 troubles" in printed.stdout
    assert {".tmp-holiday", ".tmp-mine.jpg"} <= set(os.listdir(folder / "data"))
    left = troubles(folder)
    assert [trouble.fix for trouble in left] == [None, None]
    assert "shard-00000000.tar" in left[0].what
    assert "model.safetensors" in left[1].what
    assert client.get_run(run.info.run_id).info.status == "KILLED"


def test_a_merge_conflict_in_dvcs_lock_is_named(folder: Path) -> None:
    (folder / "dvc.lock").write_text("<<<<<<< HEAD\nschema: '2.0'\n=======\n>>>>>>> theirs\n")
    with pytest.raises(UserError, match=r"dvc.lock: not valid YAML .*mend what a merge left in it"):
        maker_of(Path("models/x"))


def test_a_full_disk_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("selftrain.doctor.FREE", 2**62)
    assert any("MiB are free on its disk" in trouble.what for trouble in troubles(folder))


def test_a_split_that_is_gone_is_named(folder: Path) -> None:
    shutil.rmtree(folder / "data" / "corpus" / "validation")
    told = [trouble for trouble in troubles(folder) if "validation" in trouble.what]
    assert [trouble.what for trouble in told] == [f"{folder / 'data/corpus/validation'}: is not there"]


def test_a_workspace_that_has_nothing_yet(tmp_path: Path, folder: Path) -> None:
    for name in ("data", "models", "predictions", "selections", ".selftrain"):
        shutil.rmtree(folder / name)
    printed = selftrain(folder, "doctor")
    assert printed.returncode == 0, printed.stderr
    assert "nothing is wrong" in printed.stdout
    assert "selftrain 0" in printed.stdout
    assert printed.stdout.endswith("`dvc repro` would run every stage: nothing was made yet\n")
