"""The stage `evaluate`, on tables whose truth is known."""

import json
import shutil
from pathlib import Path

import numpy as np
import polars as pl

from selftrain.evaluation.evaluate import Inputs, evaluate
from selftrain.params.evaluate import EvaluateConfig
from selftrain.params.select import SelectConfig
from selftrain.selection.select import select
from selftrain.tables.manifest import iter_manifest
from selftrain.tables.multi_labels import write_multi_labels
from selftrain.tables.parquet import read_frame
from selftrain.tables.predictions import PredictionPart, made_from_digest, write_part
from selftrain.tables.selection import selection_digest

CLASSES = [str(label) for label in range(10)]


def biased(corpus: Path, out: Path) -> None:
    """A teacher that knows the digits and takes far too many for a 0."""
    rng = np.random.default_rng(0)
    truth = dict(read_frame(corpus / "truth.parquet").iter_rows())
    for split in ("unlabeled", "validation", "test"):
        for shard, table in iter_manifest(corpus / split, ["key", "label"]):
            rows = table.to_pylist()
            labels = np.array([truth[row["key"]] if split == "unlabeled" else row["label"] for row in rows])
            logits = rng.normal(0, 1, (len(rows), 10))
            logits[np.arange(len(rows)), labels] += 3.0
            logits[:, 0] += 4.0
            log_probs = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
            part = PredictionPart(
                table["key"].to_numpy(), log_probs.argmax(1).astype(np.int32),
                np.exp(log_probs.max(1)).astype(np.float32), log_probs.astype(np.float16),
            )  # fmt: skip
            write_part(out / split, shard, part, CLASSES, "biased")


def test_any_run_is_held_against_the_several_right_classes_of_test_images(digits_corpus: Path, tmp_path: Path) -> None:
    corpus, tables, model = tmp_path / "corpus", tmp_path / "tables", tmp_path / "model"
    shutil.copytree(digits_corpus, corpus)
    biased(corpus, tables)
    model.mkdir()
    (model / "model.safetensors").write_bytes(b"weights")
    (model / "run.json").write_text(json.dumps({"run": "teacher", "data": {}}))
    inputs = Inputs(corpus, model, tables, None, None)
    assert "test_precision_at_1" not in evaluate(inputs, EvaluateConfig(), tmp_path / "out")
    with (corpus / "sources.csv").open("w") as csv:
        csv.write("file,label\n")
        for _, table in iter_manifest(corpus / "test", ["source", "label"]):
            for row in table.to_pylist():  # a 0 is right everywhere
                csv.write(f"{row['source']},{row['label']}\n{row['source']},0\n")
    write_multi_labels(corpus / "sources.csv", corpus / "test", CLASSES, set())
    said = pl.concat([read_frame(part, ["key", "label"]) for part in sorted((tables / "test").glob("part-*"))])
    truth = pl.concat([pl.DataFrame(table) for _, table in iter_manifest(corpus / "test", ["key", "label"])])
    joined = said.join(truth, on="key", suffix="_true")
    right = ((joined["label"] == joined["label_true"]) | (joined["label"] == 0)).mean()
    figures = evaluate(inputs, EvaluateConfig(), tmp_path / "out")
    assert figures["test_precision_at_1"] == right
    assert figures["test_accuracy"] < right, "which takes far too many for a 0"
    assert figures["test_multi_labeled"] == len(truth)


def test_the_precision_to_expect_is_that_of_labels_after_the_shift(digits_corpus: Path, tmp_path: Path) -> None:
    tables, selection, model = tmp_path / "tables", tmp_path / "selection", tmp_path / "model"
    biased(digits_corpus, tables)
    wanted = SelectConfig(threshold=0.3, per_class="all", prior="uniform")
    select(wanted, 0, tables / "unlabeled", digits_corpus, selection)
    model.mkdir()
    (model / "model.safetensors").write_bytes(b"weights")
    data = {"predictions": made_from_digest(tables / "unlabeled"), "selection": selection_digest(selection)}
    (model / "run.json").write_text(json.dumps({"run": "student", "data": data}))
    figures = evaluate(Inputs(digits_corpus, model, tables, tables, selection), EvaluateConfig(), tmp_path / "out")
    right = figures["pseudo_label_accuracy"]
    assert right > 0.7, "aligned labels are good"
    assert figures["expected_precision_low"] <= right <= figures["expected_precision_high"]
