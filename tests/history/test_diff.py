"""Differences of selections against a brute force over made-up tables."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from selftrain.history.compare import compare, write_diff_json
from selftrain.history.diff import CHANGES, diff_selections
from selftrain.plumbing.errors import UserError
from selftrain.tables.keys import make_key, part_name
from selftrain.tables.parquet import write_frame
from selftrain.tables.selection import TRAINED_ON
from tests.repository import with_pipeline

CLASSES = ["a", "b", "c"]
Rows = dict[int, tuple[int, float, str, int]]
SCHEMA = {"key": pl.Int64, "label": pl.Int32, "confidence": pl.Float32, "decision": pl.String, "copies": pl.Int32}

DECIDED = st.tuples(
    st.integers(0, 2),
    st.sampled_from([0.1, 0.5, 0.9]),
    st.sampled_from([("kept", 1), ("kept", 3), ("corrected", 1), ("low_confidence", 0), ("leak", 0)]),
)
TABLE = st.dictionaries(st.integers(0, 11), DECIDED, min_size=1, max_size=12)


def write(folder: Path, rows: Rows) -> Path:
    """A selection of images 0…, five a shard."""
    folder.mkdir(parents=True, exist_ok=True)
    for shard in {number // 5 for number in rows} | {0}:
        own = [(make_key("unlabeled", n // 5, n % 5), *row) for n, row in sorted(rows.items()) if n // 5 == shard]
        write_frame(pl.DataFrame(own, schema=SCHEMA, orient="row"), folder / part_name(shard))
    (folder / "summary.json").write_text(json.dumps({"per_class": {key: {} for key in CLASSES}}))
    return folder


def brute_force(a: Rows, b: Rows) -> dict[int, str]:
    changes = {}
    for key in {*a, *b}:
        before, after = a.get(key), b.get(key)
        was, is_ = before is not None and before[2] in TRAINED_ON, after is not None and after[2] in TRAINED_ON
        if was and is_:
            assert before is not None
            assert after is not None
            changes[key] = "flipped" if before[0] != after[0] else "copies" if before[3] != after[3] else "same"
        else:
            changes[key] = "entered" if is_ else "left" if was else "out"
    return changes


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(made_a=TABLE, made_b=TABLE)
def test_against_brute_force(tmp_path_factory: pytest.TempPathFactory, made_a: Any, made_b: Any) -> None:
    a, b = ({n: (label, c, *decided) for n, (label, c, decided) in made.items()} for made in (made_a, made_b))
    folder = tmp_path_factory.mktemp("diff")
    paths = write(folder / "a", a), write(folder / "b", b)
    if not set(a) & set(b):
        with pytest.raises(UserError, match="have no image in common"):
            diff_selections(*paths, CLASSES, 100)
        return
    diff = diff_selections(*paths, CLASSES, 100)
    expected = brute_force(a, b)
    assert diff.counts == {change: list(expected.values()).count(change) for change in CHANGES}
    named = {
        make_key("unlabeled", n // 5, n % 5): change for n, change in expected.items() if change not in ("same", "out")
    }
    assert dict(diff.examples.select("key", "change").iter_rows()) == named
    assert sum(diff.decisions["images"]) == len(expected)
    for label, row in enumerate(diff.by_class.iter_rows(named=True)):
        kept_a = [n for n, r in a.items() if r[0] == label and r[2] in TRAINED_ON]
        kept_b = [n for n, r in b.items() if r[0] == label and r[2] in TRAINED_ON]
        assert (row["images_a"], row["images_b"]) == (len(kept_a), len(kept_b))
        assert (row["balanced_a"], row["balanced_b"]) == (sum(a[n][3] for n in kept_a), sum(b[n][3] for n in kept_b))
        assert (
            row["images_a"] - row["left"] - row["flipped_out"] + row["entered"] + row["flipped_in"] == row["images_b"]
        )


def test_examples_are_those_that_moved_most(tmp_path: Path) -> None:
    a = write(tmp_path / "a", dict.fromkeys(range(8), (0, 0.5, "low_confidence", 0)))
    b = write(tmp_path / "b", {n: (0, 0.5 + n / 20, "kept", 1) for n in range(8)})
    diff = diff_selections(a, b, CLASSES, 3)
    assert [key % 10**6 + 5 * (key // 10**6 % 10) for key in diff.examples["key"]] == [7, 6, 5]
    assert diff.counts["entered"] == 8


def test_what_there_is_not_is_named(tmp_path: Path) -> None:
    write(tmp_path / "one", {0: (0, 0.5, "kept", 1)})
    with pytest.raises(UserError, match=r"two: no selection there; there are: one"):
        compare(tmp_path, "one", "two", None, 3)
    other = write(tmp_path / "two", {0: (0, 0.5, "kept", 1)})
    (other / "summary.json").write_text(json.dumps({"per_class": {"x": {}}}))
    with pytest.raises(UserError, match="one and two have other classes: a, b, c and x"):
        compare(tmp_path, "one", "two", None, 3)


@pytest.mark.slow
def test_a_round_against_an_earlier_revision(tmp_path: Path) -> None:
    environment = os.environ | {
        f"GIT_{who}_{what}": "t@t" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")
    }

    def run(*command: str) -> str:
        result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, env=environment)
        assert result.returncode == 0, result.stderr
        return result.stdout

    dvc, ours = [sys.executable, "-m", "dvc"], [sys.executable, "-m", "selftrain"]
    write(tmp_path / "source" / "r", dict.fromkeys(range(4), (0, 0.5, "kept", 1)))
    (tmp_path / "dvc.yaml").write_text(
        "stages: {select: {cmd: mkdir -p selections/p && cp -r source/r selections/p/r, deps: [source], outs: [selections/p/r]}}"
    )
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(with_pipeline({"pipeline": "p"})))
    run("git", "init", "-q")
    run(*dvc, "init", "-q")
    run(*dvc, "repro", "-q")
    run("git", "add", "-A", ".")
    run("git", "commit", "-q", "-m", "one")
    write(tmp_path / "source" / "r", {n: (1, 0.9, "kept", 1) if n < 2 else (0, 0.5, "leak", 0) for n in range(4)})
    run(*dvc, "repro", "-q")
    printed = run(*ours, "diff", "r", "--rev", "HEAD", "--json", "d.json")
    assert "r at HEAD → r" in printed
    told = json.loads((tmp_path / "d.json").read_text())
    assert told["counts"] == {"entered": 0, "left": 2, "flipped": 2, "copies": 0, "same": 0, "out": 0}
    assert {(row["from"], row["to"], row["images"]) for row in told["decisions"]} == {
        ("kept", "kept", 2),
        ("kept", "leak", 2),
    }
    result = subprocess.run(
        [*ours, "diff", "r", "--rev", "no-such"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert "error: --rev no-such: git knows no such revision" in result.stderr
    result = subprocess.run([*ours, "diff", "r"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert "error: r is compared with nothing: name a second round, or a revision by --rev" in result.stderr


def test_json_and_page_hold_the_comparison(digits_rounds: Path, tmp_path: Path) -> None:
    from selftrain.report.diff_page import write_diff_page

    compared = compare(digits_rounds / "selections" / "noisy_student", "student1", "student2", None, 5)
    write_diff_json(compared, tmp_path / "d.json")
    told = json.loads((tmp_path / "d.json").read_text())
    assert (told["a"], told["b"]) == ("student1", "student2")
    assert told["counts"] == compared.diff.counts
    write_diff_page(compared, digits_rounds / "data" / "corpus" / "unlabeled", tmp_path / "d.html")
    page = (tmp_path / "d.html").read_text()
    assert "student1 → student2" in page
    assert page.count("data:image/png;base64,") == len(compared.diff.examples)
    assert "http" not in page
