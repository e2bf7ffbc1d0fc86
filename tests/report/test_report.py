import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from PIL import Image

from selftrain.plumbing.errors import UserError
from selftrain.report import charts, drawing, pictures
from selftrain.report.mlflow_page import compared_runs, view_as_tag
from selftrain.report.runs import load_runs
from selftrain.report.summary import print_summary, table_row
from tests.report.evaluated import write_run


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


def test_a_class_name_is_no_markup_of_the_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    figures = {"validation_accuracy": 0.9, "validation_nll": 0.3}
    figures |= {"validation_accuracy_low": 0.88, "validation_accuracy_high": 0.92}
    write_run(tmp_path, "teacher", None, **figures)
    record = tmp_path / "teacher" / "details" / "run.json"
    names = ["cat [small]", "[/]", "[red]x"]
    record.write_text(json.dumps(json.loads(record.read_text()) | {"without_pseudo_labels": names}))
    print_summary(tmp_path, ["teacher"], Path("reports"))
    assert "no pseudo-label of cat [small], [/], [red]x; its students" in capsys.readouterr().out


def test_long_names_are_shortened_in_charts() -> None:
    assert drawing.shortened("a" * 24) == "a" * 24
    assert drawing.shortened("a" * 25) == "a" * 23 + "…"


def test_table_rows(evaluation: Path) -> None:
    first, *_, last = load_runs(evaluation)
    assert table_row(first) == ("z_first", "m", "91.2%", "88.0% – 94.0%", "–", "–", "12 s")
    assert table_row(last)[4:6] == ("50.0%", "95.0%")


def test_mlflows_view_shows_these_runs_and_the_charts_that_matter(evaluation: Path) -> None:
    view = compared_runs(load_runs(evaluation))
    assert all(f"'id-{name}'" in view["searchFilter"] for name in ("z_first", "a_control", "round9", "round10"))
    sections = {section["uuid"] for section in view["compareRunSections"]}
    assert {chart["metricSectionId"] for chart in view["compareRunCharts"]} == sections
    (parallel,) = [chart for chart in view["compareRunCharts"] if chart["type"] == "PARALLEL"]
    assert parallel["selectedMetrics"] == ["coverage", "pseudo_label_accuracy", "test_accuracy"], "what they have"
    lines = [chart["metricKey"] for chart in view["compareRunCharts"] if chart["type"] == "LINE"]
    assert lines[0] == "validation_accuracy"
    assert len(view_as_tag(load_runs(evaluation))) < 5000, "the most that MLflow takes as a tag"


def test_more_runs_than_a_tag_can_name_are_named_by_their_pipeline(tmp_path: Path) -> None:
    for number in range(200):
        write_run(tmp_path, f"run{number}", None)
        path = tmp_path / f"run{number}" / "details" / "run.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"pipeline": "p"}))
    runs = load_runs(tmp_path)
    assert json.loads(view_as_tag(runs))["searchFilter"] == "tags.pipeline = 'p'"


def test_charts_take_the_pages_colour_and_come_out_the_same(evaluation: Path) -> None:
    runs = load_runs(evaluation)
    chart = charts.accuracy_chart(runs)
    assert chart.startswith("<svg")
    assert "currentColor" in chart
    assert drawing.INK not in chart
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
