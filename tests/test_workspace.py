"""What `selftrain check` says of the folder: git, DVC and the images that DVC is to watch."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from selftrain.plumbing.errors import UserError
from selftrain.project import Project
from selftrain.workspace import check_workspace
from tests.conftest import write_images
from tests.repository import ROOT, with_pipeline


def project(folder: Path, root: str = "photos") -> Project:
    ingest = {"root": root, "labeled": {"images": "labeled"}, "unlabeled": {"images": "pool"}}
    values = with_pipeline({"ingest": ingest})
    values["stages"] = values["stages"] | {"ingest": ["data/corpus"]}
    (folder / "params.yaml").write_text(yaml.safe_dump(values))
    return Project.open(folder)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A project with git, DVC and three images."""
    folder = tmp_path / "p"
    write_images(folder / "photos" / "pool", 3)
    subprocess.run(["git", "init", "--quiet", str(folder)], check=True)
    (folder / ".dvc").mkdir()
    (folder / ".dvc" / "config").write_text("[core]\n    analytics = false\n")
    return folder


def test_images_that_neither_git_nor_dvc_holds_are_said(folder: Path) -> None:
    (note,) = check_workspace(project(folder))
    assert note.startswith("note: neither git nor DVC holds photos; workspaces of `dvc exp run --temp`")
    (folder / "photos.dvc").write_text("outs: []")
    assert check_workspace(project(folder)) == []
    (folder / "photos.dvc").unlink()
    subprocess.run(["git", "-C", str(folder), "add", "photos"], check=True)
    assert check_workspace(project(folder)) == []


def test_a_user_without_a_name(folder: Path) -> None:
    """As in a container that was started with `--user 54321`."""
    program = (
        "from selftrain.inspection.corrections import _author; print(_author()); from selftrain.project import Project;"
        "from selftrain.workspace import check_workspace; check_workspace(Project.open())"
    )
    project(folder)
    command = ["unshare", "--user", "--map-user=54321", "--map-group=54321", sys.executable, "-c", program]
    named = ("LOGNAME", "USER", "LNAME", "USERNAME")
    environment = {name: value for name, value in os.environ.items() if name not in named} | {"HOME": str(folder)}
    for user in ({}, {"USER": "me"}):
        ended = subprocess.run(command, cwd=folder, env=environment | user, capture_output=True, text=True, check=False)
        if "unshare" in ended.stderr:
            pytest.skip("no right to be another user")
        assert ended.stdout.splitlines()[0] == user.get("USER", "user 54321")
        assert ("`export USER=me` gives one" in ended.stderr) == (not user)


def test_a_project_in_a_folder_with_a_space_is_made(tmp_path: Path) -> None:
    folder = tmp_path / "my photos"
    (folder / ".venv" / "bin").mkdir(parents=True)
    for name in ("Makefile", "requirements.txt", "pyproject.toml"):
        shutil.copy(ROOT / name, folder)
    (folder / ".venv" / ".installed").touch()
    for name in ("dvc", "selftrain"):
        tool = folder / ".venv" / "bin" / name
        tool.write_text(f"#!/bin/sh\necho {name} $* $MLFLOW_TRACKING_URI")
        tool.chmod(0o755)
    environment = {name: value for name, value in os.environ.items() if name != "MLFLOW_TRACKING_URI"}
    ended = subprocess.run(
        ["make", "--silent", "repro"], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    uri = f"sqlite:///{folder}/mlflow.db"
    assert ended.stdout.splitlines() == [f"selftrain check {uri}", f"dvc repro {uri}", f"selftrain summary {uri}"], (
        ended
    )


def test_images_outside_the_project_are_there_for_every_workspace(folder: Path) -> None:
    outside = folder.parent / "outside"
    write_images(outside / "pool", 1)
    assert check_workspace(project(folder, str(outside))) == []


def test_a_temporary_workspace_without_the_images_says_why(folder: Path) -> None:
    inside = folder / ".dvc" / "tmp" / "exps" / "tmpabc"
    inside.mkdir(parents=True)
    with pytest.raises(UserError, match=r"there is no folder photos; workspaces of `dvc exp run --temp`"):
        check_workspace(project(inside))
    with pytest.raises(UserError, match=r"params.yaml: ingest.root: there is no folder pictures$"):
        check_workspace(project(folder, "pictures"))


def test_dvc_without_git_is_told_how_to_go_on(folder: Path, tmp_path: Path) -> None:
    (folder / ".git").rename(tmp_path / "git")
    if any((parent / ".git").exists() for parent in folder.parents):
        pytest.skip("the temporary folder is inside a repository")
    with pytest.raises(UserError, match=r"no git repository here.*git init.*core.no_scm"):
        check_workspace(project(folder))
    (folder / ".dvc" / "config").write_text("[core]\n    no_scm = true\n")
    check_workspace(project(folder))


@pytest.mark.parametrize("root", [".", "data"])
def test_a_root_that_holds_the_corpus(folder: Path, root: str) -> None:
    (folder / "data").mkdir()
    with pytest.raises(UserError, match=r"holds data/corpus, and DVC cannot watch"):
        check_workspace(project(folder, root))


def test_what_is_neither_file_nor_folder_is_named(folder: Path) -> None:
    os.mkfifo(folder / "photos" / "pool" / "pipe.jpg")
    with pytest.raises(UserError, match=r"photos/pool/pipe.jpg: a pipe, a socket or a device"):
        check_workspace(project(folder))
    (folder / "photos" / "pool" / "pipe.jpg").unlink()
    (folder / "photos" / "pool" / "a.jpg").symlink_to("nowhere")
    with pytest.raises(UserError, match=r"photos/pool/a.jpg: a link to nothing"):
        check_workspace(project(folder))
