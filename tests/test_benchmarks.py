"""`make bench` runs; its figures are for people."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.repository import ROOT


@pytest.mark.slow
@pytest.mark.parametrize(
    ("stage", "rows"),
    [
        ("ingest", ["32 pixels", "photographs, 500×375, again with nothing new"]),
        ("hashes", ["100 held-out images, 10,000 in the pool"]),
        ("batches", ["32 pixels, first time", "224 pixels of photographs, kept"]),
        ("predict", ["test_resnet, 32 pixels"]),
        ("training", ["test_resnet, 32 pixels"]),
        ("processes", ["test_resnet, 32 pixels", "test_resnet, BatchNorm over both"]),
        ("selecting", ["20,000 rows, 10 classes"]),
        ("scale", ["20,000"]),
        ("start", ["nothing to do, one pipeline"]),
    ],
)
def test_a_benchmark_prints_its_ratios(stage: str, rows: list[str], tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks" / "speed" / f"{stage}.py")],
        cwd=tmp_path,
        env=os.environ | {"QUICK": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    for name in rows:
        assert re.search(rf"^\| {re.escape(name)} \|.*\d \|$", ended.stdout, re.MULTILINE), ended.stdout
    assert list(tmp_path.glob(".selftrain/speed/*.json"))


def test_the_programs_behind_the_pages_figures_find_what_they_import() -> None:
    folder = ROOT / "benchmarks"
    names = sorted(path.stem for path in folder.glob("*.py"))
    assert len(names) > 12
    code = f"import importlib\nfor name in {names}: importlib.import_module(name)"
    ended = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": f"{folder}:{ROOT / 'src'}"}, cwd=ROOT,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
