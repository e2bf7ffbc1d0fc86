"""Projects of users' own: `selftrain init`, `selftrain new`."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from PIL import Image

import selftrain as st
from selftrain.check import check_project
from selftrain.plumbing.errors import UserError
from selftrain.project import Project
from selftrain.start.init import init
from selftrain.start.look import fit, look
from selftrain.start.new import new_pipeline
from tests.conftest import write_images
from tests.start.shop import images

__all__ = ["images"]


def test_a_project_is_whole_and_valid(images: Path, tmp_path: Path) -> None:
    project = tmp_path / "shop"
    seen = init(project, images / "labeled", images / "pool")
    assert (seen.classes, seen.per_class, seen.pool_images, seen.side) == (["cat: tabby", "no"], 10, 12, 80)
    written = {path.name for path in project.iterdir()}
    assert {"params.yaml", "dvc.yaml", "corrections.parquet", ".gitignore", ".dvcignore", ".git", ".dvc"} <= written
    opened = Project.open(project)
    check_project(opened)
    ingest = opened.values["ingest"]
    assert ingest["root"] == str(images)
    assert (ingest["labeled"], ingest["unlabeled"]) == ({"images": "labeled"}, {"images": "pool"})
    assert ingest["test"] == {"cut_from": "labeled", "share": 0.2}
    assert opened.values["train"]["image_size"] == 64
    assert (project / "dvc.yaml").read_text().splitlines()[3] == "vars: [{root: ., params: params.yaml}]"
    status = subprocess.run(
        [sys.executable, "-m", "dvc", "stage", "list", "--name-only"],
        cwd=project,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "installed_code@selftrain" in status.stdout.split()
    assert "code@src/selftrain" not in status.stdout.split()


def test_images_inside_the_project_are_named_from_it(images: Path, tmp_path: Path) -> None:
    project = tmp_path / "shop"
    shutil.copytree(images, project / "photos")
    write_images(project / "photos" / "held_out" / "cat: tabby", 2, seed=5)
    write_images(project / "photos" / "held_out" / "no", 2, seed=6)
    init(project, project / "photos" / "labeled", project / "photos" / "pool", test=project / "photos" / "held_out")
    ingest = yaml.safe_load((project / "params.yaml").read_text())["ingest"]
    assert ingest["root"] == "photos"
    assert ingest["test"] == {"images": "held_out"}
    assert ingest["validation"] == {"cut_from": "labeled", "share": 0.2}


def test_a_repository_that_is_there_stays_as_it_is(images: Path, tmp_path: Path) -> None:
    repository = tmp_path / "work"
    repository.mkdir()
    subprocess.run(["git", "init", "-q"], cwd=repository, check=True)
    project = repository / "models" / "shop"
    project.mkdir(parents=True)
    (project / ".gitignore").write_text("mine\n/data/\n")
    init(project, images / "labeled", images / "pool")
    assert (project / ".gitignore").read_text().startswith("mine\n/data/\n/.venv/\n")
    assert not (project / ".git").exists()
    assert "core.no_scm" not in (project / ".dvc" / "config").read_text()
    before = (project / "params.yaml").read_bytes()
    with pytest.raises(UserError, match=r"params.yaml: is there already"):
        init(project, images / "labeled", images / "pool")
    assert (project / "params.yaml").read_bytes() == before


def test_what_fails_can_be_mended_and_done_again(images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project = tmp_path / "shop"
    with monkeypatch.context() as without_git:
        without_git.setenv("PATH", str(tmp_path))
        with pytest.raises(UserError, match=r"cannot set up a repository there \(git is not installed\)"):
            init(project, images / "labeled", images / "pool")
    project.joinpath(".gitignore").write_bytes("für mich\n".encode("latin-1"))
    init(project, images / "labeled", images / "pool")
    assert (project / ".gitignore").read_bytes().startswith("für mich\n".encode("latin-1"))
    check_project(Project.open(project))

    ignored = tmp_path / "outer"
    ignored.mkdir()
    subprocess.run(["git", "init", "-q"], cwd=ignored, check=True)
    (ignored / ".gitignore").write_text("inner/\n")
    with pytest.raises(UserError, match=r"`dvc init` cannot set it up \(.*ignored"):
        init(ignored / "inner", images / "labeled", images / "pool")
    assert not (ignored / "inner" / "params.yaml").exists()


@pytest.mark.parametrize(
    ("labeled", "pool", "message"),
    [
        ("labelled", "pool", "--labeled: there is no folder"),
        ("pool", "labeled", "pool: no class folders in it"),
        ("labeled", "empty", "empty: no images in it; is it mounted"),
    ],
)
def test_folders_that_cannot_be_used(images: Path, tmp_path: Path, labeled: str, pool: str, message: str) -> None:
    (images / "empty").mkdir()
    for name in {"pool", "labeled", "empty"} - {labeled, pool}:
        shutil.rmtree(images / name, ignore_errors=True)
    with pytest.raises(UserError, match=message):
        init(tmp_path / "shop", images / labeled, images / pool)
    assert not (tmp_path / "shop" / "params.yaml").exists()


def test_what_ingest_would_refuse_is_refused_first(images: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--labeled and --pool: are the same folder"):
        init(tmp_path / "shop", images / "labeled", images / "labeled")
    small = images / "labeled" / "small"
    small.mkdir()
    shutil.copy(next((images / "pool").rglob("*.png")), small)
    with pytest.raises(UserError, match="class 'small' has 1 labeled images, too few to cut validation and test from"):
        init(tmp_path / "shop", images / "labeled", images / "pool")
    assert not (tmp_path / "shop").exists()


def test_an_image_that_ingest_leaves_out_is_no_hindrance(images: Path, tmp_path: Path) -> None:
    with (images / "pool" / "0-huge.png").open("wb") as file:
        file.truncate(2**28 + 1)  # a hole: more bytes than are read, of which the disk has none
    Image.new("1", (20_000, 20_000)).save(images / "pool" / "0-wide.png")
    assert look(tmp_path / "shop", images / "labeled", images / "pool", None, None).side < 20_000


def test_a_check_looks_into_the_image_folders(images: Path, tmp_path: Path) -> None:
    project = tmp_path / "shop"
    init(project, images / "labeled", images / "pool")
    check_project(Project.open(project))
    (images / "pool").rename(images / "poool")
    with pytest.raises(UserError, match="pool: no such folder; check the paths under `ingest`"):
        check_project(Project.open(project))


def test_dvc_is_not_made_to_watch_everything(images: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="which the project .* is in, too"):
        look(images / "shop", images / "labeled", images / "pool", None, None)
    (images / "music").mkdir()
    with pytest.raises(UserError, match=r"holds other folders too \(music\)"):
        look(tmp_path / "shop", images / "labeled", images / "pool", None, None)


@pytest.mark.parametrize(("side", "expected"), [(28, 32), (32, 32), (60, 48), (96, 96), (500, 96)])
def test_what_fits(images: Path, tmp_path: Path, side: int, expected: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    monkeypatch.setattr("selftrain.start.look.find_spec", lambda name: None)
    seen = look(tmp_path / "shop", images / "labeled", images / "pool", None, None)
    fitting = fit(type(seen)(**{**vars(seen), "side": side}), None)
    assert fitting.image_size == expected
    assert fitting.random_crop == (expected > 48)
    assert (fitting.weights, fitting.probe) == (None, False)


@pytest.mark.parametrize(
    ("side", "model", "chosen", "size"),
    [
        (176, None, "tf_efficientnet_lite0", 160),
        (500, "tf_efficientnet_lite0", "tf_efficientnet_lite0", 160),
        (100, None, "tf_efficientnet_lite0", 96),
        (500, "resnet50", "resnet50", 96),
        (40, None, "test_resnet", 32),
    ],
)
def test_photographs_start_from_weights_that_are_there(
    images: Path, tmp_path: Path, side: int, model: str | None, chosen: str, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    seen = look(tmp_path / "shop", images / "labeled", images / "pool", None, None)
    fitting = fit(type(seen)(**{**vars(seen), "side": side}), model)
    assert (fitting.model, fitting.image_size) == (chosen, size)
    has_weights = chosen == "tf_efficientnet_lite0"
    assert (fitting.probe, fitting.weights) == (has_weights, "package" if has_weights else None)


def test_a_new_pipeline_is_a_folder(images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project = tmp_path / "shop"
    init(project, images / "labeled", images / "pool")
    folder = new_pipeline(project, "louder_noise")
    assert {path.name for path in folder.iterdir()} == {"params.yaml", "dvc.yaml", "README.md"}
    opened = Project.open(project, "louder_noise")
    check_project(opened, paths=False)
    assert (opened.models, opened.config.stages.ingest) == (project / "models" / "louder_noise", [])
    assert opened.values["browse"]["dataset"] == "shop_louder_noise"
    assert "root: ../.., params: pipelines/louder_noise/params.yaml" in (folder / "dvc.yaml").read_text()
    # However the same is written.
    text = (project / "params.yaml").read_text()
    text = text.replace("pipeline: noisy_student", "pipeline:   'noisy_student'").replace(
        "dataset: shop", "dataset: '2024'"
    )
    (project / "params.yaml").write_text(text.replace("ingest: [data/corpus]", "ingest:\n  - data/corpus"))
    other = Project.open(project, new_pipeline(project, "other").name)
    check_project(other, paths=False)
    assert (other.name, other.config.stages.ingest, other.config.stages.results) == ("other", [], ["other"])
    assert other.values["browse"]["dataset"] == "2024_other"
    (project / "pipelines" / "other").rename(project / "pipelines" / "third")
    with pytest.raises(UserError, match="is 'other' in the folder of 'third'; its stages would work on that one"):
        Project.open(project, "third")
    shutil.rmtree(project / "pipelines" / "third")
    for name, message in (
        ("louder_noise", "there is a pipeline"),
        ("noisy_student", "there is"),
        ("Loud!", "cannot name"),
    ):
        with pytest.raises(UserError, match=message):
            new_pipeline(project, name)
    listed = subprocess.run(
        [sys.executable, "-m", "dvc", "stage", "list", "--name-only", "pipelines/louder_noise/dvc.yaml"],
        cwd=project, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert "pipelines/louder_noise/dvc.yaml:train@student1" in listed.stdout


def test_opening_what_init_made(images: Path, tmp_path: Path) -> None:
    project = st.init(tmp_path / "shop", labeled=images / "labeled", pool=images / "pool", model="resnet50")
    assert isinstance(project, st.Project)
    assert project.folders.values["train"]["model"] == "resnet50"
    assert list(project.runs) == ["teacher", "labeled_only", "student1", "student2", "student3"]
