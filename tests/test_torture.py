"""A slice of `make torture`, and a whole workspace's damage as `selftrain doctor` sees it."""

import importlib.util
from pathlib import Path
from typing import Any

import pytest

from tests.repository import ROOT


def torture() -> Any:
    spec = importlib.util.spec_from_file_location("torture", ROOT / "benchmarks" / "torture.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    import sys

    sys.modules["torture"] = module  # its dataclass looks itself up
    spec.loader.exec_module(module)
    return module


def test_no_fault_passes_in_silence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    counted = torture().torture(tmp_path, 700, seed=1)
    assert sum(outcomes.total() for outcomes in counted.values()) == 700
    for name, outcomes in counted.items():
        assert outcomes["silent"] == 0, name
        assert outcomes["traceback"] == 0, name
        assert outcomes["noticed"] >= 30, name
