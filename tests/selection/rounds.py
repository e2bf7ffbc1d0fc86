"""A teacher's tables with the corpus beside them, and what is selected from them."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
from scipy.special import softmax

from selftrain.params.select import SelectConfig
from selftrain.plumbing.files import read_json
from selftrain.selection.select import select
from selftrain.tables.keys import make_key, part_name
from selftrain.tables.manifest import manifest_schema
from selftrain.tables.parquet import write_arrow
from selftrain.tables.predictions import PredictionPart, write_part
from selftrain.tables.selection import scan_selection
from tests.selection.tables import CLASSES, write_corpus

SHARD = 400


def write_table(folder: Path, split: str, probs: np.ndarray) -> np.ndarray:
    """A prediction table of probabilities (N, C); returns the keys."""
    keys = np.array([make_key(split, number // SHARD, number % SHARD) for number in range(len(probs))])
    for shard in range(math.ceil(len(probs) / SHARD)):
        some = slice(shard * SHARD, (shard + 1) * SHARD)
        of_part = probs[some]
        labels, confidences = of_part.argmax(1).astype(np.int32), of_part.max(1).astype(np.float32)
        log_probs = np.log(of_part).astype(np.float16)
        write_part(folder / split, shard, PredictionPart(keys[some], labels, confidences, log_probs), CLASSES, "test")
    return keys


def write_labels(corpus: Path, keys: np.ndarray, labels: np.ndarray, split: str = "validation") -> None:
    folder = corpus / split / "manifest"
    folder.mkdir(parents=True)
    schema = pa.schema([manifest_schema().field("key"), manifest_schema().field("label")])
    write_arrow(pa.table({"key": keys, "label": labels.astype(np.int32)}, schema), folder / part_name(0))


def drawn(count: int, seed: int, overconfident: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """(probabilities that a teacher says, true labels); it says p^overconfident, and p is true."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 1.6, (count, len(CLASSES))) + np.array([1.0, 0.0, -1.5])
    true = softmax(logits, axis=1)
    labels = (rng.random(count)[:, None] > true.cumsum(axis=1)).sum(axis=1)
    return softmax(overconfident * logits, axis=1), labels


class Round:
    """A teacher's tables, the corpus beside them, and what is selected from them."""

    def __init__(self, folder: Path, probs: np.ndarray, validation: np.ndarray, truth: np.ndarray) -> None:
        self.folder = folder
        self.keys = write_table(folder / "teacher", "unlabeled", probs)
        self.corpus = write_corpus(folder / "corpus", {}, self.keys.tolist())
        # Validation is written in one part.
        keys = np.array([make_key("validation", 0, number) for number in range(len(validation))])
        labels, confidences = validation.argmax(1).astype(np.int32), validation.max(1).astype(np.float32)
        part = PredictionPart(keys, labels, confidences, np.log(validation).astype(np.float16))
        write_part(folder / "teacher" / "validation", 0, part, CLASSES, "test")
        write_labels(self.corpus, keys, truth)

    def select(self, earlier: tuple[Path, ...] = (), **config: Any) -> pl.DataFrame:
        values = SelectConfig.model_validate({"per_class": "all"} | config)
        table = self.folder / "teacher" / "unlabeled"
        self.summary = select(values, 0, table, self.corpus, self.folder / "out", earlier=earlier)
        assert self.summary == read_json(self.folder / "out" / "summary.json", "")
        return scan_selection(self.folder / "out").collect().sort("key")
