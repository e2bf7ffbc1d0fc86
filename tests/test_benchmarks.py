"""`make bench` runs; its figures are for people."""

import os
import re
import subprocess
import sys

import pytest

from tests.repository import ROOT


@pytest.mark.slow
@pytest.mark.parametrize(
    ("script", "rows"),
    [
        (["throughput.py"], ["ingest", "a noised view", "predict"]),
        (["selecting.py", "--rows", "20000", "--classes", "10", "--rows-a-part", "5000"], ["a filter and a copy"]),
    ],
)
def test_a_benchmark_prints_its_ratios(script: list[str], rows: list[str]) -> None:
    ended = subprocess.run(
        [sys.executable, f"benchmarks/{script[0]}", *script[1:]],
        cwd=ROOT,
        env=os.environ | {"QUICK": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    for name in rows:
        assert re.search(rf"^\| {name} \|.*\d \|$", ended.stdout, re.MULTILINE), ended.stdout
