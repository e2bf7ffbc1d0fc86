"""What the App knows of the pool before it is a dataset: tables, without FiftyOne."""

import shutil
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest

from selftrain.inspection.rounds import browsed_runs, history
from selftrain.inspection.tables import Pool, iter_pool, rows_of, sample_views, tally_rounds
from selftrain.inspection.views import all_views
from tests.inspection.browsed import pool, project_of

__all__ = ["pool"]


def test_no_image_and_no_round_are_tables_too(pool: Pool) -> None:
    none = rows_of(pool, set())
    assert len(none) == 0
    assert none.columns == next(iter_pool(pool)).columns
    assert tally_rounds(replace(pool, runs=pool.runs[:1])).columns == ["label", "decision", "images", "copies", "round"]
    assert tally_rounds(pool).schema == tally_rounds(replace(pool, runs=pool.runs[:1])).schema


def test_runs_without_tables_are_left_out(pool: Pool) -> None:
    assert [(run.name, run.selection is not None) for run in pool.runs] == [
        ("teacher", False), ("student1", True), ("student2", True),
    ]  # fmt: skip


def test_a_round_without_its_teachers_predictions_is_not_shown_and_told(
    digits_rounds: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(digits_rounds, tmp_path / "copy", symlinks=True)
    shutil.rmtree(tmp_path / "copy" / "predictions" / "noisy_student" / "teacher")
    runs = browsed_runs(project_of(tmp_path / "copy"))
    assert [(run.name, run.selection is not None) for run in runs] == [("student1", False), ("student2", True)]
    assert "student1: its teacher teacher has no predictions, so its round is not shown" in capsys.readouterr().out
    assert not [view.name for view in all_views(runs) if view.name.startswith("student1: ")]


def test_the_pool_is_its_tables_side_by_side(pool: Pool, digits_rounds: Path) -> None:
    table = pl.concat(list(iter_pool(pool)))
    for run in ("teacher", "student1", "student2"):
        own = pl.read_parquet(digits_rounds / "predictions" / "noisy_student" / run / "unlabeled" / "*.parquet")
        assert table.select("key", f"{run}_label", f"{run}_confidence").rows() == own.select("key", "label", "confidence").rows()  # fmt: skip
    chosen = pl.read_parquet(digits_rounds / "selections" / "noisy_student" / "student2" / "*.parquet")
    names = ["student2_pseudo", "student2_decision", "student2_copies"]
    assert table.select(names).rows() == chosen.select("label", "decision", "copies").rows()
    listed = table.filter(pl.col("student2_review").is_not_null()).sort("student2_review")
    assert len(listed) == 40
    reviewed = pl.read_parquet(digits_rounds / "review" / "noisy_student" / "student2.parquet")
    assert listed["key"].to_list() == reviewed["key"].to_list()


def test_views_sample_the_pool_and_count_all_of_it(pool: Pool) -> None:
    table = pl.concat(list(iter_pool(pool)))
    views = all_views(pool.runs)
    some, all_ = sample_views(pool, views, 15), sample_views(pool, views, 10**6)
    for view in views:
        expected = set(table.filter(view.rows())["key"].to_list())
        assert all_[view.name] == (expected, len(expected)), view.name
        keys, count = some[view.name]
        assert (len(keys), count) == (min(15, len(expected)), len(expected))
        assert keys <= expected
    first = table.sort("student2_review", nulls_last=True)["key"].to_list()[:15]
    assert some["student2: look here first"][0] == set(first), "by rank, not by uniform"
    assert some == sample_views(pool, views, 15), "the same every time"


def test_history_reads_from_left_to_right(pool: Pool) -> None:
    row = {
        "teacher_label": 3, "teacher_confidence": 0.914, "student1_label": 3, "student1_confidence": 0.97,
        "student1_decision": "kept", "student1_copies": 2, "student2_label": 8, "student2_confidence": 0.5,
        "student2_decision": "over_quota", "student2_copies": 0,
    }  # fmt: skip
    told = history(row, pool.runs, [str(label) for label in range(10)])
    assert told == "teacher: 3 0.91 → student1 (kept ×2): 3 0.97 → student2 (over quota): 8 0.50"
