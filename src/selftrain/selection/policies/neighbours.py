"""Labels that an image's neighbours carry too: above ``select.threshold``, and that of most of the nearest images.

Neighbours are the ``select.neighbours`` most similar images of the pool by the cosine of the teacher's embeddings. A
label that fewer than half of them have is ``lonely``. In a pool of more than 20,000 images they are sought among so
many, drawn by their keys.
"""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from selftrain.counters import Stream, mix
from selftrain.params.select import SelectConfig
from selftrain.selection.policies.threshold import Threshold
from selftrain.selection.sources import Source
from selftrain.tables.embeddings import read_embeddings
from selftrain.tables.selection import LOW_CONFIDENCE

if TYPE_CHECKING:
    import polars as pl

LONELY = "lonely"
REFERENCE_IMAGES = 20_000


class Neighbours(Threshold):
    """``low_confidence`` as ``threshold``; ``lonely`` where fewer than half of the neighbours have the label."""

    parameters = ("threshold", "neighbours")
    uses_embeddings = True
    reasons = (LOW_CONFIDENCE, LONELY)

    def __init__(self, config: SelectConfig, source: Source) -> None:
        super().__init__(config, source)
        self.folder = source.embeddings()
        keys, labels = [], []
        for part in source.parts(["key", "label"]):
            keys.append(part["key"].to_numpy())
            labels.append(part["label"].to_numpy())
        all_keys, all_labels = np.concatenate(keys), np.concatenate(labels)
        drawn = np.sort(np.argsort(mix(0, Stream.NEIGHBOURS, all_keys), kind="stable")[:REFERENCE_IMAGES])
        self.keys, self.labels = all_keys[drawn], all_labels[drawn]
        self.vectors = self._unit_vectors(self.keys)

    def decide(self, rows: "pl.DataFrame") -> "pl.Series":
        """See the class."""
        import polars as pl

        keys, labels = rows["key"].to_numpy(), rows["label"].to_numpy()
        shares = self._shares(keys, labels) if len(rows) else np.zeros(0)
        low = super().decide(rows)
        lonely = pl.Series(shares < 0.5)
        return pl.select(pl.when(low.is_not_null()).then(low).when(lonely).then(pl.lit(LONELY))).to_series()

    def _shares(self, keys: NDArray[np.int64], labels: NDArray[np.int32]) -> NDArray[np.float64]:
        """The share of each image's neighbours that have its label, (N,)."""
        count = min(self.config.neighbours, len(self.keys) - 1)
        shares = np.ones(len(keys))
        for start in range(0, len(keys), 1000):
            some = slice(start, start + 1000)
            likeness = self._unit_vectors(keys[some]) @ self.vectors.T  # (n, R)
            # No image is its own neighbour.
            likeness[keys[some][:, None] == self.keys[None]] = -np.inf
            if count > 0:
                nearest = np.argpartition(-likeness, count - 1, axis=1)[:, :count]
                shares[some] = (self.labels[nearest] == labels[some][:, None]).mean(axis=1)
        return shares

    def _unit_vectors(self, keys: NDArray[np.int64]) -> NDArray[np.float32]:
        vectors = read_embeddings(self.folder, set(keys.tolist())).vectors.astype(np.float32)
        unit: NDArray[np.float32] = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
        return unit
