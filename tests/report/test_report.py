import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from PIL import Image

from selftrain.errors import UserError
from selftrain.report import charts, pictures
from selftrain.report.mlflow_page import comparison_url
from selftrain.report.runs import load_runs
from selftrain.report.summary import table_row


def write_run(folder: Path, name: str, teacher: str | None, **metrics: Any) -> None:
    (folder / name / "details").mkdir(parents=True)
    figures = {"test_accuracy": 0.9123, "test_accuracy_low": 0.88, "test_accuracy_high": 0.94, "train_seconds": 12.4}
    (folder / name / "metrics.json").write_text(json.dumps(figures | metrics))
    about = {"run": name, "teacher": teacher, "model": "m", "mlflow_run_id": f"id-{name}", "classes": ["a", "b"]}
    (folder / name / "details" / "run.json").write_text(json.dumps(about))


@pytest.fixture
def evaluation(tmp_path: Path) -> Path:
    write_run(tmp_path, "z_first", None)
    write_run(tmp_path, "a_control", None)
    write_run(tmp_path, "round10", "round9", coverage=0.5, pseudo_label_accuracy=0.95)
    write_run(tmp_path, "round9", "z_first", coverage=0.5)
    return tmp_path


def test_teachers_come_before_their_students_and_controls_after_their_like(evaluation: Path) -> None:
    assert [run.name for run in load_runs(evaluation)] == ["z_first", "a_control", "round9", "round10"]
    assert [run.name for run in load_runs(evaluation, ["round9", "z_first"])] == ["z_first", "round9"]
    with pytest.raises(UserError, match="nothing evaluated there yet"):
        load_runs(evaluation / "none")


def test_table_rows(evaluation: Path) -> None:
    first, *_, last = load_runs(evaluation)
    assert table_row(first) == ("z_first", "m", "91.2%", "88.0% – 94.0%", "–", "–", "12 s")
    assert table_row(last)[4:6] == ("50.0%", "95.0%")


def test_the_comparison_names_every_run(evaluation: Path) -> None:
    url = comparison_url(evaluation, ["z_first", "a_control", "round9", "round10"], "1", "http://127.0.0.1:5000")
    assert url.startswith("http://127.0.0.1:5000/#/compare-runs?runs=")
    assert all(f"id-{name}" in url for name in ("z_first", "a_control", "round9", "round10"))


def test_charts_take_the_pages_colour_and_come_out_the_same(evaluation: Path) -> None:
    runs = load_runs(evaluation)
    chart = charts.accuracy_chart(runs)
    assert chart.startswith("<svg")
    assert "currentColor" in chart
    assert charts.INK not in chart
    assert ">91.2<" in chart
    assert chart == charts.accuracy_chart(runs)


def test_pictures_are_small_and_say_what_they_show(digits_corpus: Path) -> None:
    keys = pl.read_parquet(digits_corpus / "unlabeled" / "manifest" / "*.parquet")["key"].to_list()[:2]
    examples = pl.DataFrame(
        {
            "group": ["surest", "flipped"], "key": keys, "label": [3, 1], "confidence": [0.91, 0.5],
            "decision": ["kept", None], "copies": [2, None], "truth": [3, -1], "teacher_label": [None, 7],
        }
    )  # fmt: skip
    surest, flipped = pictures.picture_grids(examples, digits_corpus / "unlabeled", [str(label) for label in range(10)])
    assert (surest.name, surest.pictures[0].caption, surest.pictures[0].wrong) == ("surest", "3 0.91", False)
    assert surest.pictures[0].title == f"{keys[0]}: 3 0.91, 2 copies, truth: 3"
    assert (flipped.pictures[0].caption, flipped.pictures[0].wrong) == ("7→1 0.50", True)
    assert flipped.pictures[0].title.endswith("truth: none of the classes")
    large = Image.fromarray(np.random.default_rng(0).integers(0, 256, (900, 1200, 3), dtype=np.uint8))
    assert len(pictures.data_url(large)) < 8000
