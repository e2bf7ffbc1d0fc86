"""What a person is asked: one image of each kind, the typical one, none that is known already."""

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from selftrain.plumbing.errors import UserError
from selftrain.selection.ask import DOUBTFUL, choose, questions
from selftrain.tables.corrections import no_corrections, write_corrections
from selftrain.tables.manifest import find_rows


def test_one_image_of_each_kind_the_one_nearest_to_its_centre() -> None:
    rng = np.random.default_rng(0)
    centres = np.eye(6, 12)
    kinds = np.repeat(np.arange(6), [40, 5, 30, 8, 20, 10])
    vectors = centres[kinds] + 0.05 * rng.normal(size=(len(kinds), 12))
    margins = rng.random(len(kinds))
    places = choose(vectors, margins, 6, 0)
    assert sorted(kinds[places]) == list(range(6)), "large and small kinds alike"
    assert np.all(np.diff(margins[places]) >= 0), "the most doubtful first"
    unit = vectors - vectors.mean(axis=0)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    for place in places:
        members = np.flatnonzero(kinds == kinds[place])
        distances = np.linalg.norm(unit[members] - unit[members].mean(axis=0), axis=1)
        assert place == members[distances.argmin()]


def test_all_of_them_where_there_are_not_so_many() -> None:
    margins = np.array([0.3, 0.1, 0.2])
    assert choose(np.eye(3), margins, 5, 0).tolist() == [1, 2, 0]


def test_copies_and_what_a_person_has_spoken_of_are_not_asked_for(digits_rounds: Path, tmp_path: Path) -> None:
    corpus, predictions = digits_rounds / "data" / "corpus", digits_rounds / "predictions" / "noisy_student"
    file = tmp_path / "corrections.parquet"
    write_corrections(file, no_corrections())
    asked = questions(predictions / "student2", corpus, file, 20, 0)
    assert asked["rank"].to_list() == list(range(1, 21))
    assert asked["key"].n_unique() == 20
    assert asked.equals(questions(predictions / "student2", corpus, file, 20, 0)), "the same every time"
    parts = pl.read_parquet(predictions / "student2" / "unlabeled" / "part-*.parquet")
    probs = np.exp(np.stack([np.frombuffer(row, np.float16) for row in parts["log_probs"]]).astype(float))
    two = np.sort(probs, axis=1)[:, -2:]
    margins = dict(zip(parts["key"], two[:, 1] - two[:, 0], strict=True))
    limit = np.quantile(list(margins.values()), DOUBTFUL)
    assert all(margins[key] <= limit + 1e-3 for key in asked["key"])
    said = asked["key"].to_list()[:10]
    hashes = dict(find_rows(corpus / "unlabeled", said).select("key", "sha256").iter_rows())
    rows = [
        {"key": key, "action": "reject", "label": None, "who": "x", "when": None, "sha256": hashes[key]} for key in said
    ]
    write_corrections(file, pl.DataFrame(rows, schema=no_corrections().schema))
    again = questions(predictions / "student2", corpus, file, 20, 0)
    assert not set(again["key"]) & set(said)
    with pytest.raises(
        UserError, match=r"teacher: has no embeddings, which `selftrain ask` needs; set `predict.embeddings: true`"
    ):
        questions(predictions / "teacher", corpus, file, 20, 0)
    with pytest.raises(UserError, match=r"nobody: nothing was predicted yet, .* run `dvc repro`"):
        questions(predictions / "nobody", corpus, file, 20, 0)


@pytest.mark.slow
def test_the_command_prints_what_the_app_will_show(digits_rounds: Path, tmp_path: Path) -> None:
    project = tmp_path / "project"
    shutil.copytree(digits_rounds, project, symlinks=True)
    command = [sys.executable, "-m", "selftrain", "ask", "--budget", "4"]
    ran = subprocess.run([*command, "--run", "student2"], cwd=project, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    asked = pl.read_parquet(project / ".selftrain" / "asked" / "noisy_student.parquet")
    lines = ran.stdout.splitlines()
    for row, line in zip(asked.iter_rows(named=True), lines, strict=False):
        guess = f"(student2 guesses {row['label']}, {row['confidence']:.0%})"
        assert line == f"{row['rank']:>3}  {row['source']}  {guess}"
    assert len(asked) == 4
    assert "label these first" in lines[4]
    ran = subprocess.run(command, cwd=project, capture_output=True, text=True, check=False)
    assert "teacher: has no embeddings" in ran.stderr, "by default the first teacher's doubts"
