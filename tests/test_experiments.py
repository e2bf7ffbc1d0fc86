"""`dvc exp`, as the README has it: a parameter is tried, and what follows from it alone runs again."""

import json
import shutil
from pathlib import Path

import pytest

from tests.repository import Project


@pytest.mark.slow
def test_hard_labels_are_tried_and_taken_back(reproduced_once: Path, tmp_path: Path) -> None:
    shutil.copytree(reproduced_once, tmp_path / "project", symlinks=True)
    project = Project(tmp_path / "project")
    name = "rounds.student2.train.algorithm.labels"
    said = project.run("dvc", "exp", "run", "-n", "hard", "-S", f"{name}=hard")
    ran = [line.split("'")[1] for line in said.splitlines() if line.startswith("Running stage")]
    assert {"train@student2", "predict@student2", "evaluate@student2"} <= set(ran)
    assert not [stage for stage in ran if stage.endswith(("@teacher", "@student1", "select@student2"))]
    changed = json.loads(project.run("dvc", "exp", "diff", "HEAD", "hard", "--json"))
    (of_file,) = changed["params"].values()
    assert {key: (both["old"], both["new"]) for key, both in of_file.items()} == {name: ("soft", "hard")}
    assert any("student2" in path for path in changed["metrics"])
    project.run("git", "stash", "--quiet")
    project.run("dvc", "checkout", "--quiet")
    assert project.repro() == []
