"""The stage ``evaluate``: one run's figures, from tables alone."""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from selftrain.calibration import at_temperature, fit_temperature, shift_log_probs
from selftrain.evaluation import metrics
from selftrain.evaluation.examples import select_examples
from selftrain.evaluation.held_out import held_out_metrics, precision_at_1
from selftrain.evaluation.label_quality import expected_precision, kept_precision, quality_metrics
from selftrain.evaluation.pseudo_labels import (
    class_balance,
    confidence_histogram,
    flips,
    pseudo_label_metrics,
    tally,
    threshold_curve,
)
from selftrain.params.evaluate import EvaluateConfig
from selftrain.plumbing.errors import UserError
from selftrain.plumbing.files import read_json, sha256_of
from selftrain.tables.cells import as_cell, as_cells
from selftrain.tables.corpus import classes_of
from selftrain.tables.held_out import HeldOut, load_held_out
from selftrain.tables.multi_labels import read_multi_labels
from selftrain.tables.parquet import write_frame
from selftrain.tables.predictions import made_from_digest
from selftrain.tables.records import EvaluatedRecord, Metrics, RunRecord
from selftrain.tables.selection import selection_digest
from selftrain.tables.truth import TRUTH


@dataclass(frozen=True)
class Inputs:
    """What the figures of a run are made from."""

    corpus: Path
    model: Path
    predictions: Path
    teacher_predictions: Path | None = None
    selection: Path | None = None
    """What the run was trained on."""


def evaluate(inputs: Inputs, config: EvaluateConfig, out: Path) -> dict[str, Any]:
    """Write a run's ``metrics.json``, plots' tables and ``details/``; return the metrics.

    Hidden truth, where there is some, is read here and nowhere that trains.
    """
    classes = classes_of(inputs.corpus)
    run = RunRecord.read(inputs.model / "run.json")
    _check_digests(inputs, run.data)
    truth = inputs.corpus / TRUTH
    shutil.rmtree(out, ignore_errors=True)
    details = out / "details"
    details.mkdir(parents=True)

    validation = load_held_out(inputs.predictions, inputs.corpus, "validation")
    test = load_held_out(inputs.predictions, inputs.corpus, "test")
    figures = held_out_metrics("test", test) | held_out_metrics("validation", validation)
    multi_labels = read_multi_labels(inputs.corpus / "test")
    if multi_labels is not None:
        figures |= precision_at_1(test, multi_labels)
    figures |= _calibration(validation, test)
    figures["train_seconds"] = run.train_seconds
    tables = {"predictions": made_from_digest(inputs.predictions / "unlabeled")}
    _write_held_out_tables(test, classes, out)
    flipped, teachers_validation = None, None
    without: list[str] = []
    if inputs.teacher_predictions is not None:
        teacher = load_held_out(inputs.teacher_predictions, inputs.corpus, "test")
        gained, lost, p = metrics.mcnemar(test.correct, teacher.correct)
        teachers_validation = load_held_out(inputs.teacher_predictions, inputs.corpus, "validation")
        gain = metrics.paired_difference(validation.correct, teachers_validation.correct)
        figures |= dict(zip(("validation_gain", "validation_gain_low", "validation_gain_high"), gain, strict=True))
        flipped = flips(inputs.predictions / "unlabeled", inputs.teacher_predictions / "unlabeled")
        figures |= {"gained_on_teacher": gained, "lost_to_teacher": lost, "mcnemar_p": p, "flipped": len(flipped)}
    if inputs.selection is not None:
        counts = tally(inputs.selection, truth)
        decided = read_json(inputs.selection / "summary.json", "dvc repro")
        figures |= pseudo_label_metrics(counts) | {
            name: decided[name] for name in ("threshold", "per_class_quota", "decisions")
        }
        threshold_curve(counts).write_csv(out / "thresholds.csv")
        balance = class_balance(counts, classes)
        as_cells(balance, "class").write_csv(out / "class_balance.csv")
        without = balance.filter(balance["kept"] == 0)["class"].to_list()
        figures["classes_without_pseudo_labels"] = len(without)
        confidence_histogram(counts).write_csv(details / "confidence.csv")
        tables["selection"] = selection_digest(inputs.selection)
        if teachers_validation is not None:
            labeling = teachers_validation
            if decided["shift"] is not None:  # the labels are those after the shift
                labeling = labeling.with_log_probs(shift_log_probs(labeling.log_probs, np.array(decided["shift"])))
            expected = expected_precision(labeling, counts, classes)
            as_cells(expected, "class").write_csv(details / "label_quality.csv")
            kept = kept_precision(labeling, counts, classes)
            as_cells(kept, "class").write_csv(details / "kept_quality.csv")
            figures |= quality_metrics(kept, expected, config.target_precision)
    else:
        # DVC's plots of every run: those of a run without pseudo-labels are empty.
        (out / "thresholds.csv").write_text("threshold,coverage,accuracy\n", encoding="utf-8")
        (out / "class_balance.csv").write_text("class,predicted,kept,balanced\n", encoding="utf-8")
    write_frame(select_examples(inputs.selection, flipped, truth, config.examples), details / "examples.parquet")
    matrix = metrics.confusion_matrix(test.labels, test.predicted, len(classes))
    np.savetxt(details / "confusion_matrix.csv", matrix, fmt="%d", delimiter=",")
    recall = metrics.per_class_accuracy(matrix).tolist()
    found = {
        "classes": classes,
        "per_class_accuracy": dict(zip(classes, recall, strict=True)),
        "tables": tables,
        "without_pseudo_labels": without,
        "weights": sha256_of(inputs.model / "model.safetensors"),
    }
    EvaluatedRecord(**run.as_dict() | found).write(details / "run.json")
    Metrics(**figures).write(out / "metrics.json")
    return figures


def _check_digests(inputs: Inputs, recorded: dict[str, str]) -> None:
    """What the model was trained on lies where it lay: DVC follows these tables through the model's ``run.json``."""
    if inputs.teacher_predictions is not None:
        table = inputs.teacher_predictions / "unlabeled"
        if made_from_digest(table) != recorded.get("predictions"):
            raise UserError(f"{table}: not the table that {inputs.model} was trained with; run `dvc repro`")
    if inputs.selection is not None and selection_digest(inputs.selection) != recorded.get("selection"):
        raise UserError(f"{inputs.selection}: not what {inputs.model} was trained on; run `dvc repro`")


def _calibration(validation: HeldOut, test: HeldOut) -> dict[str, float]:
    """The temperature that fits the validation split, and the calibration error that it leaves on test."""
    temperature = fit_temperature(validation.log_probs, validation.labels)
    confidences = np.exp(at_temperature(test.log_probs, temperature).max(axis=1)).astype(np.float32)
    diagram = metrics.reliability(confidences, test.correct)
    return {"temperature": temperature, "test_calibration_error_scaled": diagram.expected_calibration_error}


def _write_held_out_tables(test: HeldOut, classes: list[str], out: Path) -> None:
    import polars as pl

    diagram = metrics.reliability(test.confidences, test.correct)
    pl.DataFrame({"confidence": diagram.confidence, "accuracy": diagram.accuracy, "images": diagram.count}).filter(
        pl.col("images") > 0
    ).write_csv(out / "reliability.csv")
    names = np.array([as_cell(name) for name in classes])
    pairs = pl.DataFrame({"actual": names[test.labels], "predicted": names[test.predicted]})
    pairs.write_csv(out / "confusion.csv")
