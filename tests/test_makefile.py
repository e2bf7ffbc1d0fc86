"""What `make` does that no other test runs."""

import shutil
import subprocess
from pathlib import Path

from tests.repository import ROOT

MADE = (
    "data/code/noisy_student/train.txt", "data/corpus/classes.json", "models/noisy_student/best/model.safetensors",
    "predictions/noisy_student/a.parquet", "selections/noisy_student/a.parquet", "evaluation/noisy_student/a.json",
    "reports/noisy_student/index.html", "mlflow.db", ".selftrain/checkpoints/a",
)  # fmt: skip
OWN = (
    "data/mine/cat/0.jpg", "data/digits/labeled/3/answer.png", "images/dog/1.jpg", ".venv/bin/python",
    ".dvc/cache/files/md5/00/1", "params.yaml",
)  # fmt: skip


def test_clean_removes_what_was_made_and_nothing_of_the_users(tmp_path: Path) -> None:
    shutil.copy(ROOT / "Makefile", tmp_path)
    for name in (*MADE, *OWN):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x")
    subprocess.run(["make", "clean"], cwd=tmp_path, check=True, capture_output=True)
    left = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    assert left == {*OWN, "Makefile"}
