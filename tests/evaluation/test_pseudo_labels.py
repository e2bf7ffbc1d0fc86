from pathlib import Path

import numpy as np
import polars as pl
import pytest

from selftrain.evaluation import examples, pseudo_labels
from selftrain.evaluation.examples import COLUMNS, select_examples
from selftrain.tables.parquet import write_frame

CLASSES = ["a", "b", "c"]


@pytest.fixture
def tables(tmp_path: Path) -> tuple[Path, Path, pl.DataFrame]:
    """A random selection in two parts, hidden truth of most of it, and both joined."""
    rng = np.random.default_rng(0)
    count = 400
    confidence = rng.random(count).astype(np.float32)
    confidence[:3] = [0.0, 1.0, np.nan]
    decision = np.where(confidence > 0.5, "kept", "low_confidence")
    decision[(confidence > 0.9) & (np.arange(count) % 2 == 0)] = "over_quota"
    decision[2] = "low_confidence"
    frame = pl.DataFrame(
        {
            "key": np.arange(count),
            "label": rng.integers(0, 3, count).astype(np.int32),
            "confidence": confidence,
            "decision": decision,
            "copies": np.where(decision == "kept", 2, 0).astype(np.int32),
        }
    )
    (tmp_path / "s").mkdir()
    write_frame(frame[:150], tmp_path / "s" / "part-00000000.parquet")
    write_frame(frame[150:], tmp_path / "s" / "part-00000001.parquet")
    truth = pl.DataFrame({"key": np.arange(50, count), "label": rng.integers(-1, 3, count - 50).astype(np.int32)})
    write_frame(truth, tmp_path / "truth.parquet")
    return (
        tmp_path / "s",
        tmp_path / "truth.parquet",
        frame.join(truth.rename({"label": "truth"}), on="key", how="left"),
    )


def test_metrics_against_the_whole_table(tables: tuple[Path, Path, pl.DataFrame]) -> None:
    selection, truth, rows = tables
    figures = pseudo_labels.pseudo_label_metrics(pseudo_labels.tally(selection, truth))
    kept = rows.filter(pl.col("decision") == "kept")
    known = kept.filter(pl.col("truth").is_not_null())
    assert figures == {
        "coverage": len(kept) / 400,
        "kept": len(kept),
        "balanced": 2 * len(kept),
        "pseudo_label_accuracy": known.filter(pl.col("truth") == pl.col("label")).height / len(known),
        "out_of_domain_kept": known.filter(pl.col("truth") == -1).height,
        "pseudo_label_accuracy_unfiltered": rows.filter(pl.col("truth") == pl.col("label")).height / 350,
    }


def test_threshold_curve_against_thresholding(tables: tuple[Path, Path, pl.DataFrame]) -> None:
    selection, truth, rows = tables
    curve = pseudo_labels.threshold_curve(pseudo_labels.tally(selection, truth))
    sure = rows.with_columns(pl.col("confidence").fill_nan(0))
    for threshold, coverage, accuracy in curve.iter_rows():
        above = sure.filter(pl.col("confidence").cast(pl.Float64) >= threshold - 1e-9)
        known = above.filter(pl.col("truth").is_not_null())
        assert coverage == pytest.approx(len(above) / 400, abs=0.003)
        assert accuracy == pytest.approx(known.filter(pl.col("truth") == pl.col("label")).height / len(known), abs=0.01)


def test_what_no_threshold_lets_in_is_in_no_curve() -> None:
    columns = ["label", "decision", "bin", "images", "copies", "known", "correct", "out_of_domain"]
    rows = [
        (0, "kept", 90, 6, 6, 6, 6, 0), (0, "low_confidence", 40, 4, 0, 4, 2, 0), (1, "over_quota", 95, 2, 0, 2, 2, 0),
        (0, "out_of_domain", 95, 9, 0, 9, 0, 9), (1, "leak", 99, 5, 0, 5, 0, 0), (1, "corrected", 80, 3, 3, 3, 0, 0),
        (1, "rejected", 99, 1, 0, 1, 0, 0), (1, "duplicate", 99, 1, 0, 1, 1, 0), (0, "not_sampled", 90, 2, 0, 2, 2, 0),
    ]  # fmt: skip
    counts = pl.DataFrame(rows, schema=columns, orient="row", schema_overrides={"bin": pl.Int32})
    curve = {round(100 * row[0]): row[1:] for row in pseudo_labels.threshold_curve(counts).iter_rows()}
    assert curve[0] == pytest.approx((14 / 33, 12 / 14)), "of all images; of those that a threshold decides on"
    assert curve[90] == pytest.approx((10 / 33, 1.0))


def test_without_truth_there_is_no_accuracy(tables: tuple[Path, Path, pl.DataFrame], tmp_path: Path) -> None:
    write_frame(pl.DataFrame(schema={"key": pl.Int64, "label": pl.Int32}), tmp_path / "none.parquet")
    counts = pseudo_labels.tally(tables[0], tmp_path / "none.parquet")
    assert set(pseudo_labels.pseudo_label_metrics(counts)) == {"coverage", "kept", "balanced"}
    assert pseudo_labels.threshold_curve(counts)["accuracy"].null_count() == 100


def test_balance_and_histogram_add_up(tables: tuple[Path, Path, pl.DataFrame]) -> None:
    selection, truth, rows = tables
    counts = pseudo_labels.tally(selection, truth)
    balance = pseudo_labels.class_balance(counts, CLASSES)
    for label, (name, predicted, kept, balanced) in enumerate(balance.iter_rows()):
        own = rows.filter(pl.col("label") == label)
        assert (name, predicted, kept, balanced) == (
            CLASSES[label], len(own), own.filter(pl.col("decision") == "kept").height, own["copies"].sum(),
        )  # fmt: skip
    histogram = pseudo_labels.confidence_histogram(counts)
    assert histogram["images"].sum() == 400
    assert histogram.filter(pl.col("decision") == "kept")["confidence"].min() == 0.5


def test_examples_are_what_their_group_says(tables: tuple[Path, Path, pl.DataFrame]) -> None:
    selection, truth, rows = tables
    flipped = pl.DataFrame({"key": [7, 9], "label": [1, 1], "confidence": [0.2, 0.9], "teacher_label": [0, 2]}).cast(
        {"label": pl.Int32, "confidence": pl.Float32, "teacher_label": pl.Int32}
    )
    shown = select_examples(selection, flipped, truth, 10)
    assert tuple(shown.columns) == COLUMNS
    kept = rows.filter(pl.col("decision") == "kept").sort("confidence", "key", descending=[True, False])
    groups = {name: group for (name,), group in shown.group_by("group", maintain_order=True)}
    assert groups["surest"]["key"].to_list() == kept["key"].to_list()[:10]
    assert groups["least sure kept"]["confidence"].to_list() == sorted(kept["confidence"].to_list())[:10]
    assert set(groups["below the threshold"]["decision"]) == {"low_confidence"}
    assert groups["flipped"]["key"].to_list() == [9, 7]
    wrong = groups["wrong and kept"]
    assert (wrong["truth"] != wrong["label"]).all()
    assert (groups["out of domain and kept"]["truth"] == -1).all()
    assert select_examples(None, None, truth, 10).is_empty()


def test_examples_of_some_parts_at_a_time_are_those_of_all(
    digits_rounds: Path, digits_corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    selection, truth = digits_rounds / "selections" / "noisy_student" / "student1", digits_corpus / "truth.parquet"
    assert len(list(selection.glob("part-*.parquet"))) > 2
    whole = select_examples(selection, None, truth, 7)
    assert whole["group"].n_unique() >= 4
    for at_once in (1, 2):
        monkeypatch.setattr(examples, "PARTS_AT_ONCE", at_once)
        assert select_examples(selection, None, truth, 7).equals(whole)
