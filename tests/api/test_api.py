"""`import selftrain as st`: what is public, and what it gives."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from PIL import Image
from polars.testing import assert_frame_equal

import selftrain as st
from tests.conftest import write_images

NAMES = {
    "Model", "Project", "Run", "UserError", "__version__", "init", "load", "open", "select", "studies", "train", "two_moons",
}  # fmt: skip


def test_the_public_names() -> None:
    assert set(st.__all__) == NAMES
    assert dir(st) == st.__all__
    for name in st.__all__:
        assert getattr(st, name) is not None
        assert name == "__version__" or getattr(st, name).__doc__
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = st.nothing


def test_importing_imports_nothing_else() -> None:
    program = "import sys, selftrain\nprint(*{name.partition('.')[0] for name in sys.modules})"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    assert not {"torch", "timm", "mlflow", "fiftyone", "polars", "numpy", "dvc"} & set(loaded)


def test_it_is_typed() -> None:
    assert (Path(st.__file__).parent / "py.typed").is_file()


@pytest.fixture
def project(digits_rounds: Path) -> st.Project:
    return st.open(digits_rounds)


def test_a_projects_tables_are_frames(project: st.Project) -> None:
    assert list(project.runs) == ["teacher", "student1", "student2"]
    with pytest.raises(st.UserError, match="there is no run 'student9'; did you mean 'student2'?"):
        _ = project.runs["student9"]
    selection = project.runs["student2"].selection()
    assert selection.columns == ["key", "label", "confidence", "decision", "copies", "weight"]
    predictions = project.runs["student1"].predictions("unlabeled")
    assert predictions["key"].to_list() == selection["key"].to_list()
    log_probs = predictions["log_probs"].to_numpy()
    assert log_probs.shape == (len(predictions), 10)
    assert (log_probs.argmax(axis=1) == predictions["label"].to_numpy()).all()
    with pytest.raises(st.UserError, match="teacher: it was trained on labeled images alone"):
        project.runs["teacher"].selection()
    decisions = project.decisions()
    assert decisions.filter(pl.col("round") == "student2")["images"].sum() == len(selection)
    assert project.runs["student2"].review()["rank"].to_list()[:3] == [1, 2, 3]
    (line,) = project.history(selection["key"].head(1))
    assert line.startswith(f"{selection['key'][0]} teacher: ")


def test_selecting_in_memory_is_the_stages_selection(project: st.Project) -> None:
    stages = project.runs["student2"].selection()
    predictions = project.runs["student1"].predictions()
    mine = st.select(predictions, threshold=0.5)
    assert mine.equals(stages)
    shuffled = predictions.sample(fraction=1, shuffle=True, seed=1)
    assert st.select(shuffled, threshold=0.5).sort("key").equals(stages)


def test_a_selection_of_nothing_says_why(project: st.Project) -> None:
    predictions = project.runs["student1"].predictions()
    nothing = st.select(predictions, threshold=0.999999)
    assert set(nothing["decision"]) == {"low_confidence"}
    assert nothing["copies"].sum() == 0
    with pytest.raises(st.UserError, match="select.treshold: unknown parameter; did you mean 'threshold'"):
        st.select(predictions, treshold=0.5)
    with pytest.raises(st.UserError, match="select.policy: there is no 'confidnce'"):
        st.select(predictions, policy="confidnce")


def test_a_pipeline_that_is_not_there(digits_rounds: Path, tmp_path: Path) -> None:
    with pytest.raises(st.UserError, match="there is no pipeline 'other'"):
        st.open(digits_rounds, "other")
    with pytest.raises(st.UserError, match=r"params.yaml: no such file"):
        st.open(tmp_path)


def test_a_project_is_itself_from_any_folder(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folders = {"validation": photos / "validation", "test": photos / "test"}
    for name in ("one", "two"):
        st.init(tmp_path / name, labeled=photos / "labeled", pool=photos / "pool", model="test_resnet", **folders)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    for path in (Path("../one"), tmp_path / "two"):
        with pytest.raises(st.UserError, match="no finished"):
            st.open(path).tracked()
        assert (path / "mlflow.db").is_file(), "its own, though both are called the same"
    assert Path.cwd() == tmp_path / "elsewhere"
    assert list(Path().iterdir()) == []
    monkeypatch.chdir(tmp_path / "one")
    here = st.open(".")
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert len(here.corrections()) == 0, "it is still the project of the folder in which it was opened"


@pytest.mark.slow
def test_training_without_dvc(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_images(photos / "pool" / "more", 20, 70)
    settings = {"model": "test_resnet", "image_size": 32, "steps": 4, "batch_size": 4, "hardware": {"workers": 0}}
    teacher = st.train(photos / "labeled", out="teacher", **settings)
    assert teacher.classes == ["cat", "dog", "owl"]
    student = st.train(
        photos / "labeled",
        pool=photos / "pool",
        validation=photos / "validation",
        teacher=teacher,
        algorithm={"name": "noisy_student", "labels": "hard"},
        select={"threshold": 0.0, "per_class": "all"},
        out="student",
        **settings,
    )
    path = next((photos / "labeled" / "cat").iterdir())
    image = Image.open(path).convert("RGB")
    found = student.predict([path, path.read_bytes(), image, np.asarray(image)])
    assert found.columns == ["label", "confidence", "probabilities"]
    assert found.n_unique() == 1, "one picture, given in four ways"
    assert sum(found["probabilities"][0]) == pytest.approx(1)
    assert found["label"][0] == student.classes[int(np.argmax(found["probabilities"][0].to_numpy()))]
    again = st.load("student").predict([path])
    for one in (path, path.read_bytes(), image, np.asarray(image), np.asarray(image.convert("L"))):
        with pytest.raises(st.UserError, match="put the one image into a list"):
            student.predict(one)
    assert_frame_equal(again, found.head(1))
    assert student.predict([]).columns == found.columns
    assert not (tmp_path / "mlflow.db").exists(), "it is not tracked unless that is asked for"
    with pytest.raises(st.UserError, match=r"nothing.png: no such file"):
        student.predict(["nothing.png"])
    (tmp_path / "broken.png").write_bytes(b"no image")
    with pytest.raises(st.UserError, match=r"broken.png: "):
        student.predict(["broken.png"])
    with pytest.raises(st.UserError, match="uint8"):
        student.predict([np.zeros((4, 4, 3))])
    with pytest.raises(st.UserError, match=r"train.lerning_rate: unknown parameter"):
        st.train(photos / "labeled", lerning_rate=1)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"algorithm": "noisy_student"}, "pool: noisy_student needs unlabeled images"),
        ({"pool": "pool"}, "pool: supervised takes no unlabeled images"),
        ({"select": {"threshold": 0.5}}, "select: supervised takes no unlabeled images"),
        ({"algorithm": {"temperature": 2}}, "algorithm: name: missing"),
        ({"hardware": {"processes": 2}}, "`st.train` is one process"),
        ({"seed": -1}, "seed: expected a whole number from 0"),
        ({"seed": 2**70}, "seed: expected a whole number from 0"),
        ({"algorithm": "mean_teacher", "pool": "pool"}, "train.ema_decay: mean_teacher learns from the average"),
        (
            {"algorithm": "meta_pseudo_labels", "pool": "pool", "networks": {"teacher": {"image_size": 64}}},
            "networks.teacher.image_size: not a network's own",
        ),
        ({"algorithm": "fixmatch", "pool": "pool", "select": {"weight": "confidence"}}, "weighs all images alike"),
    ],
)
def test_what_a_training_would_ignore_or_stumble_over_is_told_before_it(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: dict[str, Any], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    if "pool" in given:
        given = given | {"pool": photos / "pool"}
    with pytest.raises(st.UserError, match=message):
        st.train(photos / "labeled", **given)
    assert not (tmp_path / ".selftrain" / "trainings").exists()


@pytest.mark.slow
def test_trainings_that_need_more_than_a_pool(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    few = {"model": "test_resnet", "image_size": 32, "batch_size": 4, "hardware": {"workers": 0}}
    listening = {"name": "distillation", "distill_on": "labeled"}
    st.train(photos / "labeled", algorithm=listening, out="distilled", epochs=0.5, **few)
    st.train(photos / "labeled", teacher="distilled", init="teacher", out="on", steps=2, **few)
    chosen = st.train(
        photos / "labeled", pool=photos / "pool", algorithm="noisy_student", teacher="on", out="gated", steps=2,
        select={"threshold": 0.0, "gate": 0.05, "per_class": "all"}, then={"fine": {"steps": 1}}, **few,
    )  # fmt: skip
    assert chosen.classes == ["cat", "dog", "owl"]
    for path in (photos / "labeled" / "owl").iterdir():
        path.unlink()
    (photos / "labeled" / "owl").rmdir()
    again = st.train(photos / "labeled", out="distilled", steps=1, **few)
    assert again.classes == ["cat", "dog"], "other classes under the same name"
    with pytest.raises(st.UserError, match="the class 'owl' is no folder of"):
        st.train(photos / "labeled", validation=photos / "validation", out="distilled", steps=1, **few)
