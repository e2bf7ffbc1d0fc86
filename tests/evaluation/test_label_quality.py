import numpy as np
import polars as pl
import pytest

from selftrain.calibration import at_temperature, fit_temperature
from selftrain.evaluation.held_out import precision_at_1
from selftrain.evaluation.label_quality import (
    ALL,
    expected_precision,
    kept_precision,
    like_the_pool,
    quality_metrics,
    recommend,
)
from selftrain.evaluation.metrics import negative_log_likelihood, proportion_interval
from selftrain.tables.held_out import HeldOut


def sampled(rng: np.random.Generator, images: int, classes: int, temperature: float) -> tuple[np.ndarray, np.ndarray]:
    """Labels drawn from softmax(logits), and the log-probabilities of a model that says softmax(logits / temperature)."""
    logits = rng.normal(0, 2, (images, classes))
    truth = np.exp(at_temperature(logits, 1.0))
    labels = np.array([rng.choice(classes, p=row) for row in truth], np.int32)
    return at_temperature(logits, temperature).astype(np.float16), labels


@pytest.mark.parametrize("temperature", [0.4, 1.0, 3.0])
def test_the_temperature_undoes_a_models_own(temperature: float) -> None:
    log_probs, labels = sampled(np.random.default_rng(0), 4000, 5, temperature)
    fitted = fit_temperature(log_probs, labels)
    assert fitted == pytest.approx(1 / temperature, rel=0.08)
    grid = np.exp(np.linspace(np.log(0.1), np.log(10), 200))
    best = min(negative_log_likelihood(at_temperature(log_probs, t), labels) for t in grid)
    assert negative_log_likelihood(at_temperature(log_probs, fitted), labels) <= best + 1e-6


def held_out(predicted: list[int], confidences: list[float], labels: list[int]) -> HeldOut:
    probs = np.zeros((len(labels), 2), np.float16)
    arrays = (np.array(labels, np.int32), np.array(predicted, np.int32), np.array(confidences, np.float32))
    return HeldOut(np.arange(len(labels)), *arrays, probs)


POOL = pl.DataFrame(
    [
        (0, "kept", 95, 10, 0.955, 0.951, 4, 3),
        (0, "low_confidence", 20, 30, 0.205, 0.201, 0, 0),
        (1, "kept", 60, 20, 0.605, 0.601, 20, 5),
    ],
    schema=["label", "decision", "bin", "images", "confidence", "lowest", "known", "correct"],
    orient="row",
)
MIDDLE = (np.arange(100) + 0.5) / 100


def test_a_class_has_its_share_above_each_threshold() -> None:
    validation = held_out([0, 0, 0, 1, 1], [0.99, 0.9, 0.3, 0.65, 0.5], [0, 1, 0, 1, 0])
    table = expected_precision(validation, POOL, ["cat", "dog"])
    assert len(table) == 3 * 100
    rows = {(row["class"], round(row["threshold"] * 100)): row for row in table.iter_rows(named=True)}
    at_half = rows[ALL, 50]
    assert (at_half["images"], at_half["coverage"]) == (30, 0.5)
    assert at_half["validation_images"] == 3, "0.5 is not above 0.5"
    assert at_half["true_precision"] == 8 / 24
    assert rows["cat", 25]["precision"] == 2 / 3
    assert (rows["cat", 25]["low"], rows["cat", 25]["high"]) == proportion_interval(2, 3)
    assert rows["cat", 90]["true_precision"] == 3 / 4
    assert rows["cat", 90]["validation_images"] == 1, "0.9 in float32 is not above 0.9"
    assert rows["dog", 90]["precision"] is None
    assert rows["dog", 90]["coverage"] == 0
    assert (rows["dog", 0]["images"], rows["dog", 0]["validation_images"]) == (20, 2)


def test_a_harder_pool_is_expected_to_be_worse_than_the_validation_images() -> None:
    """Right is drawn with the confidence as its probability; the pool is unsure where validation is sure."""
    rng = np.random.default_rng(3)
    confidences = rng.beta(3, 1.5, 3000)
    labels = (rng.random(3000) > confidences).astype(int)
    validation = held_out([0] * 3000, confidences.tolist(), labels.tolist())
    in_pool = rng.beta(2, 2, 50_000)
    images = np.bincount((in_pool * 100).astype(int), minlength=100).astype(float)
    precision, low, high = like_the_pool(validation, images, MIDDLE)
    for threshold in (0.0, 0.3, 0.6, 0.9):
        truth = in_pool[in_pool > threshold].mean()
        place = round(100 * threshold)
        assert precision[place] == pytest.approx(truth, abs=0.03), threshold
        assert low[place] <= truth <= high[place], threshold
    assert validation.correct.mean() > precision[0] + 0.1, "the bare share would be far off"


def test_the_interval_does_not_vanish_where_all_are_right() -> None:
    validation = held_out([0] * 30, [0.95] * 30, [0] * 30)
    precision, low, high = like_the_pool(validation, np.full(100, 10.0), MIDDLE)
    assert precision[90] == high[90] == 1.0
    assert low[90] == pytest.approx(proportion_interval(30, 30)[0])


def many(*groups: tuple[float, int, int]) -> HeldOut:
    """So many right and so many wrong validation images at each confidence, all taken for class 0."""
    confidences = [c for c, right, wrong in groups for _ in range(right + wrong)]
    labels = [label for _, right, wrong in groups for label in [0] * right + [1] * wrong]
    return held_out([0] * len(labels), confidences, labels)


def test_the_recommended_threshold_is_the_lowest_from_which_on_the_target_holds() -> None:
    table = expected_precision(many((0.2, 90, 0), (0.4, 0, 40), (0.65, 30, 0), (0.9, 30, 0)), POOL, ["cat", "dog"])
    advice = recommend(table, 0.9)
    assert advice is not None
    # 0.9 and more of those at 0.6 and 0.95 are right; of those at 0.2, nine of thirteen, as up to 0.4.
    assert advice.threshold == 0.21
    at_60 = 9 / 13 + (4 / 13) * (0.605 - 0.4) / (0.65 - 0.4)
    assert advice.precision == pytest.approx((20 * at_60 + 10) / 30, abs=1e-6)
    assert advice.true_precision == 8 / 24
    assert recommend(expected_precision(many((0.9, 10, 30)), POOL, ["cat", "dog"]), 0.5) is None


def test_one_wrong_image_at_the_very_top_is_no_evidence() -> None:
    validation = many((0.6, 200, 0), (0.93, 99, 0), (0.99, 1, 1))
    advice = recommend(expected_precision(validation, POOL, ["cat", "dog"]), 0.95)
    assert advice is not None
    assert advice.threshold == 0.0


def test_what_a_person_corrected_says_nothing_of_the_teacher() -> None:
    corrected = pl.DataFrame([(0, "corrected", 99, 50, 0.99, 0.99, 50, 50)], schema=POOL.schema, orient="row")
    validation = many((0.5, 30, 0))
    with_and_without = [
        expected_precision(validation, counts, ["cat", "dog"]) for counts in (POOL, pl.concat([POOL, corrected]))
    ]
    assert with_and_without[0].drop("coverage").equals(with_and_without[1].drop("coverage"))
    coverages = [table.filter(pl.col("class").is_null())["coverage"][0] for table in with_and_without]
    assert coverages == [1.0, 60 / 110], "of the whole pool"
    alone = kept_precision(validation, corrected, ["cat", "dog"])
    assert alone["images"].to_list() == [0, 0, 0]
    assert alone["precision"].to_list() == [None, None, None]


def test_a_rounds_figures_are_of_the_labels_that_it_is_trained_on() -> None:
    validation = many((0.3, 0, 20), (0.5, 0, 20), (0.75, 20, 0), (0.9, 20, 0))
    expected = expected_precision(validation, POOL, ["cat", "dog"])
    kept = kept_precision(validation, POOL, ["cat", "dog"])
    at_60 = (0.605 - 0.5) / (0.75 - 0.5)
    assert kept["images"].to_list() == [30, 10, 20]
    assert kept["validation_images"].to_list() == [40, 0, 0], "no dog among them, and none as sure as the kept cats"
    assert kept["precision"].to_list() == [pytest.approx((20 * at_60 + 10) / 30, abs=1e-6), None, None]
    assert kept["true_precision"].to_list() == [8 / 24, 3 / 4, 5 / 20]
    figures = quality_metrics(kept, expected, 0.95)
    assert figures["expected_precision"] == kept["precision"][0]
    assert figures["recommended_threshold"] == 0.61
    assert figures["recommended_coverage"] == 10 / 60
    unseen = held_out([0], [0.9], [1])
    none = quality_metrics(
        kept_precision(unseen, POOL.filter(pl.col("bin") == 95), ["cat", "dog"]),
        expected_precision(unseen, POOL, ["cat", "dog"]),
        0.2,
    )
    assert none["recommended_threshold"] is None
    assert none["expected_precision"] is none["expected_precision_low"] is None
    assert "recommended_precision" not in none


def test_labels_that_no_threshold_of_all_classes_describes() -> None:
    """Class 0 is cut at 0.5 and class 1 never taken; most of what is above 0.5 is class 1, and wrong."""
    rng = np.random.default_rng(0)
    sure = rng.uniform(0.5, 1, 500)
    validation = held_out([0] * 500 + [1] * 500, [*sure, *rng.uniform(0, 0.5, 500)], [0] * 1000)
    rows = [(0, "kept", 90, 100, 0.905, 0.9, 100, 100), (1, "over_quota", 30, 300, 0.305, 0.3, 300, 0)]
    counts = pl.DataFrame(rows, schema=POOL.schema, orient="row")
    kept = kept_precision(validation, counts, ["cat", "dog"]).row(0, named=True)
    assert kept["precision"] == kept["true_precision"] == 1.0
    whole = expected_precision(validation, counts, ["cat", "dog"]).row(0, named=True)
    assert whole["precision"] == pytest.approx(0.25, abs=0.01)


def test_a_threshold_between_two_hundredths_is_no_other_one() -> None:
    """Above 0.999 the teacher is right, from 0.99 to 0.999 it never is."""
    rng = np.random.default_rng(0)
    low, high = rng.uniform(0.99, 0.998, 300), rng.uniform(0.9991, 1.0, 300)
    validation = held_out([0] * 600, [*low, *high], [1] * 300 + [0] * 300)
    rows = [(0, "kept", 99, 50, 0.9995, 0.9991, 0, 0), (0, "low_confidence", 99, 500, 0.994, 0.99, 0, 0)]
    kept = kept_precision(validation, pl.DataFrame(rows, schema=POOL.schema, orient="row"), ["cat", "dog"])
    assert kept["precision"].to_list()[:2] == [1.0, 1.0]
    assert kept["validation_images"].to_list()[:2] == [300, 300]


def test_what_no_image_of_the_pool_is_above_has_no_precision_and_forbids_no_advice() -> None:
    validation = many((0.5, 0, 30), (0.95, 40, 0), (0.995, 40, 0))
    table = expected_precision(validation, POOL, ["cat", "dog"])
    top = table.filter(pl.col("class").is_null() & (pl.col("threshold") == 0.99)).row(0, named=True)
    assert (top["images"], top["validation_images"]) == (0, 40)
    assert top["precision"] is top["low"] is top["high"] is None
    advice = recommend(table, 0.9)
    assert advice is not None
    assert advice.threshold == 0.61


def test_what_is_not_a_number_is_not_right() -> None:
    nothing = held_out([0, 0, 0], [float("nan"), 0.9, 0.2], [0, 0, 1])
    assert nothing.correct.tolist() == [False, True, False]
    precision, low, high = like_the_pool(nothing, np.full(100, 1.0), MIDDLE)
    assert np.isfinite([precision, low, high]).all()


def test_precision_at_1_is_of_images_with_labels() -> None:
    predicted, labels = [0, 1, 1, 0], [1, 1, 0, 0]
    run = held_out(predicted, [0.9] * 4, labels)
    rows = [(0, 0), (0, 1), (1, 0), (2, 1), (2, 0)]  # of image 3 nobody agreed on a class
    table = pl.DataFrame(rows, schema={"key": pl.Int64, "label": pl.Int32}, orient="row")
    assert precision_at_1(run, table) == {"test_precision_at_1": pytest.approx(2 / 3), "test_multi_labeled": 3}
