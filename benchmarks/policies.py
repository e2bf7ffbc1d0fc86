"""Which policy keeps the right labels: precision at each policy's own coverage, beside the surest at the same coverage.

    python benchmarks/policies.py --images FOLDER [--per-class 10] [--seeds 5] [--features FILE.npz]

FOLDER has ``train`` and ``test`` with a folder of images a class. Of ``train``, so many images a class are labeled and
twice as many are validation images, cut by the seed; the rest is the pool. The teacher is a linear probe on
EfficientNet-Lite0, ``agreement`` asks a label propagation too. A student is a probe of the labeled images and of what
was kept. Intervals are Student's, 95%, paired by the seed where they are differences.
"""

import argparse
import contextlib
import io
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray
from photograph_features import Split, cut, features, interval, over_seeds
from scipy.special import log_softmax

from selftrain.algorithms.label_propagation import LabelPropagation, LabelPropagationConfig
from selftrain.algorithms.linear_probe import WITHOUT_CHOICE, fit_head, logistic_regression, of_features, standardised
from selftrain.learning.closed_form import FittedHead, FittedTo, Pool
from selftrain.params.select import SelectConfig
from selftrain.plumbing.errors import UserError
from selftrain.plumbing.files import write_json
from selftrain.selection.select import select
from selftrain.tables.embeddings import Embeddings, embeddings_folder, write_embeddings
from selftrain.tables.keys import make_key, part_name
from selftrain.tables.manifest import manifest_schema
from selftrain.tables.parquet import write_arrow, write_frame
from selftrain.tables.predictions import PredictionPart, write_part
from selftrain.tables.selection import scan_selection

POLICIES: dict[str, dict[str, Any]] = {
    "threshold 0.7": {"policy": "threshold", "threshold": 0.7},
    "threshold 0.7, uniform prior": {"policy": "threshold", "threshold": 0.7, "prior": "uniform"},
    "precision 0.9": {"policy": "precision", "precision": 0.9},
    "adaptive": {"policy": "adaptive"},
    "agreement, 0.5": {"policy": "agreement", "threshold": 0.5},
    "neighbours, 0.5": {"policy": "neighbours", "threshold": 0.5},
    "class_probability, 100 a class": {"policy": "class_probability", "per_class": 100},
    "all": {"policy": "threshold", "threshold": 0},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--per-class", type=int, default=10)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--features", type=Path, help="A file to keep the features in.")
    options = parser.parse_args()
    train, test = features(options.images, options.features)
    found = over_seeds(options.seeds, partial(one_seed, train, test, options.per_class))
    print("| policy | coverage | kept labels right | above as many of the surest | test of a student |")
    print("| --- | ---: | ---: | ---: | ---: |")
    for name, rows in found.items():
        coverage, precision, surest, accuracy = rows.T
        unsigned = [interval(column, signed=False) for column in (coverage, precision)]
        print(f"| {name} | {' | '.join(unsigned)} | {interval(precision - surest)} | {interval(accuracy, False)} |")


def one_seed(train: Split, test: Split, per_class: int, seed: int) -> dict[str, list[float]]:
    """(coverage, precision, precision of as many of the surest, test accuracy of a student) in per cent, by policy."""
    vectors, labels = train
    classes = int(labels.max()) + 1
    rng = np.random.default_rng(seed)
    labeled, rest = cut(labels, per_class, rng)
    some, others = cut(labels[rest], 2 * per_class, rng)
    validation, pool = rest[some], rest[others]
    probe = fit_head(vectors[labeled], labels[labeled], classes, 5, seed)
    log_probs = log_probs_of(probe, vectors[pool])
    nobody, ones = np.full(len(pool), -1), np.ones(len(pool))
    of_pool = Pool(vectors[pool], log_probs.astype(np.float16), nobody, ones, 1.0)
    propagated = LabelPropagation.fit(
        LabelPropagationConfig(), FittedTo(vectors[labeled], labels[labeled], classes, of_pool), seed
    )
    surest = np.argsort(-log_probs.max(axis=1), kind="stable")
    right = log_probs.argmax(axis=1) == labels[pool]
    inputs, offset, scale = standardised(vectors)
    found = {}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        names = [str(label) for label in range(classes)]
        keys = write_table(folder / "teacher", "unlabeled", log_probs, names)
        write_table(folder / "first", "unlabeled", log_probs_of(propagated, vectors[pool]), names)
        held_out = write_table(folder / "teacher", "validation", log_probs_of(probe, vectors[validation]), names)
        write_corpus(folder / "corpus", held_out, labels[validation], keys, names)
        of_images = Embeddings(keys, vectors[pool].astype(np.float16))
        write_embeddings(embeddings_folder(folder / "teacher"), 0, of_images, "benchmark")
        for name, parameters in POLICIES.items():
            config = SelectConfig.model_validate({"per_class": "all"} | parameters)
            table, earlier = folder / "teacher" / "unlabeled", (folder / "first" / "unlabeled",)
            try:
                with contextlib.redirect_stderr(io.StringIO()):
                    select(config, seed, table, folder / "corpus", folder / "out", earlier=earlier)
            except UserError as error:
                raise SystemExit(f"{name}, seed {seed}: {error}") from None
            rows = scan_selection(folder / "out").collect().sort("key")
            kept = (rows["decision"] == "kept").to_numpy()
            said = rows["label"].to_numpy()
            fitted = logistic_regression(
                inputs[np.concatenate([labeled, pool[kept]])],
                np.concatenate([labels[labeled], said[kept]]),
                classes,
                WITHOUT_CHOICE,
            )
            student = FittedHead(*of_features(*fitted, offset, scale), WITHOUT_CHOICE, None, float("nan"))
            on_test = log_probs_of(student, test[0]).argmax(axis=1) == test[1]
            shares = (kept, (said == labels[pool])[kept], right[surest[: kept.sum()]], on_test)
            found[name] = [100 * float(share.mean()) for share in shares]
    return found


def log_probs_of(head: FittedHead, vectors: NDArray[np.float32]) -> NDArray[np.float64]:
    log_probs: NDArray[np.float64] = log_softmax(vectors @ head.weight.T + head.bias, axis=1)
    return log_probs


def write_table(run: Path, split: str, log_probs: NDArray[np.float64], names: list[str]) -> NDArray[np.int64]:
    keys = np.array([make_key(split, 0, place) for place in range(len(log_probs))])
    confidences = np.exp(log_probs.max(axis=1)).astype(np.float32)
    labels = log_probs.argmax(axis=1).astype(np.int32)
    write_part(
        run / split, 0, PredictionPart(keys, labels, confidences, log_probs.astype(np.float16)), names, "benchmark"
    )
    return keys


def write_corpus(
    corpus: Path, keys: NDArray[np.int64], labels: NDArray[np.int32], pool: NDArray[np.int64], names: list[str]
) -> None:
    """As much of a corpus as ``select`` looks at."""
    manifest = corpus / "validation" / "manifest"
    fields = pa.schema([manifest_schema().field("key"), manifest_schema().field("label")])
    write_arrow(pa.table({"key": keys, "label": labels.astype(np.int32)}, fields), manifest / part_name(0))
    write_json(corpus / "classes.json", names)
    of_pool = corpus / "unlabeled" / "manifest"
    write_arrow(pa.table({"key": pool}, pa.schema([manifest_schema().field("key")])), of_pool / part_name(0))
    schema = {"key": pl.Int64, "kind": pl.String, "of_key": pl.Int64, "match": pl.String}
    write_frame(pl.DataFrame(schema=schema), corpus / "duplicates.parquet")


if __name__ == "__main__":
    main()
