"""Which images of the pool show perhaps none of the classes: those that are strangest to the first teacher.

Students are worse judges: they were trained to be sure of such images too, if the filter let some through. Where the
teacher's embeddings are stored, an image is as strange as it is far from the labeled ones (``selection/gate.py``), else
as the entropy of its prediction says, which tells strangers from hard images much worse.
"""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from selftrain.evaluation.probabilities import probabilities
from selftrain.selection.gate import ClassGaussians, vectors_of
from selftrain.tables.embeddings import embeddings_folder, read_embeddings
from selftrain.tables.manifest import read_manifest
from selftrain.tables.predictions import PredictionPart, prediction_parts, read_part
from selftrain.tables.truth import NO_CLASS

if TYPE_CHECKING:
    import polars as pl

SHARE = 0.05
"""Share of the pool that is listed."""

Score = Callable[[PredictionPart], NDArray[np.float64]]
"""How strange each image of a part of the table is, (N,)."""


def suspects(
    runs: list[Path], corpus: Path, truth: "pl.DataFrame", images: int
) -> "tuple[pl.DataFrame, dict[str, Any]]":
    """The strangest images of the pool, and what there is to tell of them.

    ``runs`` are the folders of predictions of what was trained on labeled images alone, ``images`` the most that are
    listed. Columns: ``rank, key, label, confidence, strangeness`` (the runs' mean; of one: distance in units of the
    validation images' mean, or nats).
    """
    import polars as pl

    schema = {"key": pl.Int64, "label": pl.Int32, "confidence": pl.Float32, "strangeness": pl.Float64}
    listed, total = pl.DataFrame(schema=schema), 0
    scores = [_by_distance(run, corpus) for run in runs] if all(map(_has_embeddings, runs)) else [_entropy] * len(runs)
    for path in prediction_parts(runs[0] / "unlabeled") if runs else ():
        parts = [read_part(run / "unlabeled" / path.name) for run in runs]
        strangeness = np.mean([score(part) for score, part in zip(scores, parts, strict=True)], axis=0)  # (N,)
        arrays = (parts[0].keys, parts[0].labels, parts[0].confidences, strangeness)
        rows = pl.DataFrame(dict(zip(schema, arrays, strict=True)), schema=schema)
        listed = pl.concat([listed, rows]).sort("strangeness", "key", descending=[True, False]).head(images)
        total += len(rows)
    ranked = listed.head(max(1, round(SHARE * total))).with_row_index("rank", offset=1)
    known = ranked.join(truth, on="key")
    figures: dict[str, Any] = {"images": total, "listed": len(ranked)}
    if len(known):
        figures |= {"truth_known": len(known), "of_no_class": int((known["truth"] == NO_CLASS).sum())}
        figures["of_no_class_in_pool"] = int((truth["truth"] == NO_CLASS).sum())
    return ranked, figures


def _has_embeddings(run: Path) -> bool:
    return all(embeddings_folder(run, split).is_dir() for split in ("labeled", "validation", "unlabeled"))


def _by_distance(run: Path, corpus: Path) -> Score:
    labels = read_manifest(corpus / "labeled", ["label"])["label"].to_numpy()
    classes = ClassGaussians(vectors_of(run, "labeled"), labels)
    unit = classes.distances(vectors_of(run, "validation")).mean()

    def distance(part: PredictionPart) -> NDArray[np.float64]:
        found = read_embeddings(embeddings_folder(run), set(part.keys.tolist()))
        return classes.distances(found.vectors) / float(unit)

    return distance


def _entropy(part: PredictionPart) -> NDArray[np.float64]:
    from scipy.special import entr

    entropy: NDArray[np.float64] = entr(probabilities(part.log_probs)).sum(axis=1)
    return entropy
