"""A gate against strangers: images of no class, of which later rounds grow sure.

The first teacher is the only one that no pseudo-label has taught. Strangers lie far from the labeled images in its
embeddings, or leave it unsure. The distance is Mahalanobis' to the nearest class (Lee et al. 2018, arXiv 1807.03888,
Section 2.1): means of the labeled images, and one covariance, shrunk as Ledoit and Wolf do. An image stays out of every
round if its distance or its confidence is worse than that of all but the share ``select.gate`` of validation images.
"""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from selftrain.plumbing.errors import UserError
from selftrain.tables.embeddings import embeddings_folder, existing_embeddings, iter_embeddings, read_embeddings
from selftrain.tables.held_out import load_held_out
from selftrain.tables.keys import part_name, shard_of
from selftrain.tables.manifest import read_manifest
from selftrain.tables.parquet import read_frame

if TYPE_CHECKING:
    import polars as pl


class Gate:
    """What an image needs to come in, by the folder of predictions of the chain's first teacher."""

    def __init__(self, share: float, predictions: Path, corpus: Path) -> None:
        """Raises UserError if the first teacher has no embeddings, or the corpus no validation images."""
        self.predictions = predictions
        for split in ("labeled", "validation", "unlabeled"):
            existing_embeddings(predictions, "`select.gate`", split)
        labels = read_manifest(corpus / "labeled", ["label"])["label"].to_numpy()
        self.classes = ClassGaussians(vectors_of(predictions, "labeled"), labels)
        confidences = load_held_out(predictions, corpus, "validation").confidences
        nearness = -self.classes.distances(vectors_of(predictions, "validation"))
        self.confidences, self.nearness = np.sort(confidences), np.sort(nearness)
        self.cutoff = float(np.quantile(self._ranks(confidences, nearness), share))

    def strangers(self, rows: "pl.DataFrame") -> "pl.Series":
        """Whether each image is left out; rows are a part of the teacher's table."""
        import polars as pl

        if not len(rows):
            return pl.Series([], dtype=pl.Boolean)
        part = part_name(shard_of(int(rows["key"][0])))
        first = read_frame(self.predictions / "unlabeled" / part, ["key", "confidence"])
        known = rows.select("key").join(first, on="key", how="left", maintain_order="left")["confidence"]
        found = read_embeddings(embeddings_folder(self.predictions), set(rows["key"].to_list()))
        if known.null_count():
            raise UserError("select.gate: the first teacher's tables lack images of the pool; run `dvc repro`")
        ranks = self._ranks(known.to_numpy(), -self.classes.distances(found.vectors))
        return pl.Series(ranks < self.cutoff, dtype=pl.Boolean) | known.is_nan()

    def _ranks(self, confidences: NDArray[np.floating], nearness: NDArray[np.floating]) -> NDArray[np.float64]:
        """The share of validation images that are no better, by what is worse of confidence and nearness, (N,)."""
        by_confidence = np.searchsorted(self.confidences, confidences, side="right") / len(self.confidences)
        by_nearness = np.searchsorted(self.nearness, nearness, side="right") / len(self.nearness)
        ranks: NDArray[np.float64] = np.minimum(by_confidence, by_nearness)
        return ranks


class ClassGaussians:
    """A mean a class and one covariance of all, of embeddings (N, D) with labels (N,)."""

    def __init__(self, vectors: NDArray[np.floating], labels: NDArray[np.integer]) -> None:
        from sklearn.covariance import LedoitWolf

        wide = vectors.astype(np.float64)
        classes, of_class = np.unique(labels, return_inverse=True)
        means = np.stack([wide[labels == label].mean(axis=0) for label in classes])  # (C, D)
        fitted = LedoitWolf(assume_centered=True).fit(wide - means[of_class])
        values, axes = np.linalg.eigh(fitted.covariance_)
        # One image a class says nothing of how images of a class differ: all directions count alike.
        floor = values.max() * 1e-9 if values.max() > 0 else 1.0
        self.whitening = axes / np.sqrt(np.maximum(values, floor))  # (D, D)
        self.means = means @ self.whitening  # (C, D)

    def distances(self, vectors: NDArray[np.floating]) -> NDArray[np.float64]:
        """Squared Mahalanobis distance of each embedding (N, D) to the nearest mean, (N,)."""
        points = vectors.astype(np.float64) @ self.whitening
        squared = (points**2).sum(axis=1)[:, None] + (self.means**2).sum(axis=1) - 2 * points @ self.means.T  # (N, C)
        nearest: NDArray[np.float64] = squared.min(axis=1)
        return nearest


def vectors_of(predictions: Path, split: str) -> NDArray[np.float16]:
    """All embeddings of a split, (N, D), in key order, by the folder of a run's predictions."""
    return np.concatenate([part.vectors for part in iter_embeddings(embeddings_folder(predictions, split))])
