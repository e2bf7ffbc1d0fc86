import subprocess
import sys
from pathlib import Path

import duckdb
import pytest

from selftrain.plumbing.errors import UserError
from selftrain.plumbing.spill import FOLDER, querying, spill_folder


def test_what_a_killed_process_left_is_removed_and_what_others_have_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    program = """
import os, signal
from pathlib import Path
from selftrain.plumbing.spill import spill_folder
folder = spill_folder()
Path(folder.name, "rows").write_text("1")
os.kill(os.getpid(), signal.SIGKILL)
"""
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode < 0
    (left,) = FOLDER.iterdir()
    assert (left / "rows").exists()
    (FOLDER / "another-machine-1-x").mkdir()
    with spill_folder() as one, spill_folder() as other:
        assert {path.name for path in FOLDER.iterdir()} == {Path(one).name, Path(other).name, "another-machine-1-x"}
    assert [path.name for path in FOLDER.iterdir()] == ["another-machine-1-x"]


def test_a_query_that_has_no_room_is_told_in_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with spill_folder() as spill:
        settings = {"temp_directory": spill, "memory_limit": "20MB", "max_temp_directory_size": "1MB", "threads": "1"}
        with (
            pytest.raises(UserError, match=r"spill/.*: a query has no room"),
            querying(spill),
            duckdb.connect(config=settings) as connection,
        ):
            connection.execute("CREATE TABLE t AS SELECT range AS a, hash(range) AS b FROM range(5000000) ORDER BY b")
