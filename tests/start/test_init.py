"""Projects of users' own: `selftrain init`, `selftrain new`."""

import csv
import html
import os
import random
import re
import shutil
import subprocess
import sys
import unicodedata
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

FRAGMENTS = (
    "<script>alert(1)", "[red]", "$x_{1$", "{{ x }}", "{% x %}", "%s", "`touch pwned`", "$(touch pwned)", "=1+1", "@SUM(A1)",
    "'", '"', "&amp;", "\\", "日本", "e\u0301", "#", "|", "*", "_", "~", "<b>", ";", "--help", "null", "${HOME}",
)  # fmt: skip
"""What is markup, mathematics, a template, a formula, a shell's word or an option elsewhere."""


def nasty_names(count: int, seed: int) -> list[str]:
    """All the fragments, dealt out at random: each is in one of the names."""
    dealt = random.Random(seed).sample(FRAGMENTS, len(FRAGMENTS))
    return sorted(" ".join(dealt[place::count]) for place in range(count))


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Photographs of 100 × 80 pixels: two classes of ten, a pool of twelve."""
    root = tmp_path / "my images"
    for name in ("cat: tabby", "no"):
        write_images(root / "labeled" / name, 10, seed=len(name))
    write_images(root / "pool", 12, seed=9)
    for path in root.rglob("*.png"):
        Image.open(path).resize((100, 80)).save(path)
    return root


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


@pytest.mark.slow
def test_a_wheel_makes_a_project_and_an_upgrade_is_noticed(images: Path, tmp_path: Path) -> None:
    """Build the wheel, install it in an environment of its own, init, repro, and again after a changed algorithm.

    What the user calls classes and files is markup, mathematics, a formula and a shell word elsewhere, and text here.
    """
    from tests.repository import ROOT

    *classes, file_name = nasty_names(3, seed=int(os.environ.get("SELFTRAIN_NASTY", "0")))
    for old, new in zip(("cat: tabby", "no"), classes, strict=True):
        (images / "labeled" / old).rename(images / "labeled" / new)
    write_images(images / "labeled" / "all classes", 10, seed=77)
    (images / "pool" / "9-000.png").rename(images / "pool" / f"{file_name}.png")
    # As the program knows them: NFC.
    classes = sorted(unicodedata.normalize("NFC", name) for name in (*classes, "all classes"))

    source = tmp_path / "source"
    shutil.copytree(ROOT / "src", source / "src", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    environment = tmp_path / "venv"
    # The libraries come from this environment; the package does not.
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(environment)], check=True)
    python = environment / "bin" / "python"
    site = next(environment.glob("lib/python*/site-packages"))
    libraries = [path for path in sys.path if path.endswith("site-packages")]
    hidden = tmp_path / "libraries"
    hidden.mkdir()
    for library in libraries:
        for path in Path(library).iterdir():
            if "selftrain" not in path.name.lower() and not (hidden / path.name).exists():
                (hidden / path.name).symlink_to(path)
    (site / "libraries.pth").write_text(f"{hidden}\n")

    def install() -> None:
        shutil.rmtree(tmp_path / "dist", ignore_errors=True)
        build = [
            "uv",
            "build",
            "--quiet",
            "--no-build-isolation",
            "--wheel",
            "--out-dir",
            str(tmp_path / "dist"),
            str(source),
        ]
        subprocess.run([sys.executable, "-m", *build], check=True)
        (wheel,) = (tmp_path / "dist").glob("*.whl")
        install = ["uv", "pip", "install", "--quiet", "--no-deps", "--reinstall", "--python", str(python), str(wheel)]
        subprocess.run([sys.executable, "-m", *install], check=True)

    database = {name: value for name, value in os.environ.items() if name.startswith("FIFTYONE_")}

    def run(*command: str) -> str:
        path = f"{environment / 'bin'}:{Path(sys.executable).parent}:/usr/bin:/bin"
        result = subprocess.run(
            command, cwd=tmp_path / "shop", env={"PATH": path, "HOME": str(tmp_path), "DVC_NO_ANALYTICS": "1"} | database,
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert result.returncode == 0, result.stdout + result.stderr
        return result.stdout

    def repro(*words: str) -> list[str]:
        lines = run(str(python), "-m", "dvc", "repro", *words).splitlines()
        return [line.split("'")[1] for line in lines if line.startswith("Running stage")]

    install()
    (tmp_path / "shop").mkdir()
    run(
        "selftrain",
        "init",
        ".",
        "--labeled",
        str(images / "labeled"),
        "--pool",
        str(images / "pool"),
        "--model",
        "test_resnet",
    )
    path = tmp_path / "shop" / "params.yaml"
    params = yaml.safe_load(path.read_text())
    params["train"] |= {"steps": 4, "validate_every": 2, "image_size": 32, "noise": {"flip": 0}}
    params["supervised"] = {"teacher": {"train": {"algorithm": {"name": "supervised"}}}}
    params["rounds"] = {name: params["rounds"][name] for name in ("student1", "student2")}
    params["select"]["threshold"] = 0.0
    params["runs"] = ["teacher", "student1", "student2"]
    params["hardware"] = {"workers": 0, "threads": 1}
    path.write_text(yaml.safe_dump(params, sort_keys=False))
    first = repro()
    assert {"ingest@data/corpus", "train_supervised@teacher", "train@student1", "report@noisy_student"} <= set(first)
    assert "student1" in run("selftrain", "summary")
    page = (tmp_path / "shop" / "reports" / "noisy_student" / "index.html").read_text()
    difference = tmp_path / "shop" / "difference.html"
    run("selftrain", "diff", "student1", "student2", "--html", str(difference))
    card = (tmp_path / "shop" / "models" / "noisy_student" / "best" / "README.md").read_text()
    for text in (page, difference.read_text(), card):
        assert not re.search(r"<(script>alert|b>)", text), "markup"
    assert all(name in html.unescape(page) for name in classes)
    assert all(word in card for word in re.findall(r"\w{3,}", " ".join(classes)))
    run("selftrain", "browse", "--build-only")
    assert not list(tmp_path.rglob("pwned")), "nothing of a name was run"
    evaluation = tmp_path / "shop" / "evaluation" / "noisy_student" / "student1"
    with (evaluation / "class_balance.csv").open(newline="") as file:
        cells = [row["class"] for row in csv.DictReader(file)]
    assert sorted(cells) == sorted(f"'{name}" if name[0] in "=+-@" else name for name in classes)
    assert repro() == ["installed_code@selftrain"], "it looks whether the package was upgraded, and that is all"
    algorithm = source / "src" / "selftrain" / "algorithms" / "noisy_student.py"
    algorithm.write_text(algorithm.read_text().replace("class NoisyStudent(", "ADDED = 1\n\n\nclass NoisyStudent("))
    install()
    repro("--single-item", "installed_code@selftrain")
    again = repro("--dry")
    assert [stage for stage in again if stage.startswith("train")] == ["train@student1", "train@student2"]
    # More unlabeled images do not train the teacher again; it labels them.
    write_images(images / "pool", 1, seed=78)
    repro("--single-item", "ingest@data/corpus")
    grown = repro("--dry")
    assert "predict@teacher" in grown
    assert "train_supervised@teacher" not in grown


def test_opening_what_init_made(images: Path, tmp_path: Path) -> None:
    project = st.init(tmp_path / "shop", labeled=images / "labeled", pool=images / "pool", model="resnet50")
    assert isinstance(project, st.Project)
    assert project.folders.values["train"]["model"] == "resnet50"
    assert list(project.runs) == ["teacher", "labeled_only", "student1", "student2", "student3"]
