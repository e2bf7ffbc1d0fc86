"""The notebooks about pseudo-labels, run on a small project that DVC made. 04 is with the studies."""

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

from tests.repository import BIN, ROOT, Project


@pytest.fixture(scope="module")
def project(reproduced_once: Path, tmp_path_factory: pytest.TempPathFactory) -> Project:
    folder = tmp_path_factory.mktemp("notebooks") / "selftrain"
    shutil.copytree(reproduced_once, folder)
    return Project(folder)


def run(name: str, project: Project, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Run a notebook in a project; returns its cells' outputs as text, one a cell."""
    for variable, value in project.environment.items():
        monkeypatch.setenv(variable, value)
    monkeypatch.setenv("PATH", f"{BIN}:{os.environ['PATH']}")
    notebook = nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", as_version=4)
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(project.folder)}}).execute()
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def pictures(cells: Any) -> int:
    return sum("image/svg+xml" in output.get("data", {}) for cell in cells for output in cell.outputs)


@pytest.mark.slow
def test_the_tour_shows_its_pictures(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    cells = run("01_pseudo_labels", project, monkeypatch)
    assert pictures(cells) == 4
    text = str([cell.outputs for cell in cells])
    for word in (
        "Of the labels that it is trained on, ",
        "teacher: ",
        "→ student1",
        "suspected out of domain",
        "over_quota",
    ):
        assert word in text


@pytest.mark.slow
def test_rounds_are_compared_from_mlflow(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    cells = run("02_rounds", project, monkeypatch)
    assert pictures(cells) == 2
    assert "student1 → student2" in str(cells[-1].outputs)


@pytest.mark.slow
def test_corrections_are_made_and_trained_on(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    import polars as pl

    cells = run("03_corrections", project, monkeypatch)
    text = str([cell.outputs for cell in cells])
    ran = set(re.findall(r"Running stage '([^']+)'", text))
    assert ran >= {"select@student1", "train@student2", "evaluate@student2", "report@noisy_student"}
    assert "train_supervised@teacher" not in ran, "the first teacher learned nothing from them"
    assert "student2 at HEAD → student2" in text
    said = pl.read_parquet(project.folder / "corrections.parquet")
    selected = pl.read_parquet(project.folder / "selections" / "noisy_student" / "student2" / "*.parquet")
    decided = dict(selected.select("key", "decision").iter_rows())
    assert len(said) > 0
    for key, action in said.select("key", "action").iter_rows():
        assert decided[key] == {"reject": "rejected", "correct": "corrected"}[action]
    subprocess.run(["git", "checkout", "-q", "corrections.parquet"], cwd=project.folder, check=True)
    ran_again = project.repro()
    assert not any(stage.startswith(("train", "select")) for stage in ran_again), "taken back from the cache"


@pytest.mark.slow
def test_answers_are_labeled_images_of_every_run(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    import polars as pl

    labeled = project.folder / "data" / "digits" / "labeled"
    before = {path.name for path in labeled.rglob("*.png")}
    asked_of = dict(pl.read_parquet(project.folder / "data" / "corpus" / "truth.parquet").iter_rows())
    cells = run("06_asking", project, monkeypatch)
    asked = pl.read_parquet(next((project.folder / ".selftrain" / "asked").glob("*.parquet")))
    of_a_class = asked.filter(pl.col("key").replace_strict(asked_of) >= 0)
    new = {path.name for path in labeled.rglob("*.png")} - before
    assert len(asked) == 20
    assert len(new) == len(of_a_class) > 0
    text = str([cell.outputs for cell in cells])
    assert f"20 answers, {len(new)} of them labeled images" in text
    ran = set(re.findall(r"Running stage '([^']+)'", text))
    assert ran >= {"ingest@data/corpus", "train_supervised@teacher", "train@student2"}
    rows = pl.read_parquet(sorted((project.folder / "data" / "corpus" / "labeled" / "manifest").glob("*.parquet")))
    assert len(rows) == len(before) + len(new), "the stage `digits` ran again and left them in"


def test_notebooks_hold_no_logic_and_no_outputs() -> None:
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        notebook = nbformat.read(path, as_version=4)
        for cell in notebook.cells:
            assert not cell.get("outputs"), path
            assert not re.search(r"^\s*(?:def|class|while)\b|\blambda\b", cell.source, re.MULTILINE), path


def test_notebooks_are_numbered_in_the_order_of_reading() -> None:
    names = [Path(path).name for path in sorted((ROOT / "notebooks").glob("*.ipynb"))]
    assert [name[:2] for name in names] == [f"{number:02d}" for number in range(1, len(names) + 1)]
