"""A run on the validation and test splits: its predictions beside the labels."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from selftrain.plumbing.errors import UserError
from selftrain.tables.manifest import read_manifest
from selftrain.tables.predictions import iter_predictions


@dataclass(frozen=True)
class HeldOut:
    """Predictions on a labeled split, N images in key order."""

    keys: NDArray[np.int64]  # (N,)
    labels: NDArray[np.int32]  # (N,)
    predicted: NDArray[np.int32]  # (N,)
    confidences: NDArray[np.float32]  # (N,)
    log_probs: NDArray[np.float16]  # (N, C)

    def with_log_probs(self, log_probs: NDArray[np.floating]) -> "HeldOut":
        """The same images with other log-probabilities (N, C), and the labels and confidences that follow."""
        predicted, confidences = log_probs.argmax(axis=1), np.exp(log_probs.max(axis=1))
        return HeldOut(
            self.keys,
            self.labels,
            predicted.astype(np.int32),
            confidences.astype(np.float32),
            log_probs.astype(np.float16),
        )

    @property
    def correct(self) -> NDArray[np.bool_]:
        """Whether each prediction is right, (N,). What is not a number is not."""
        return np.equal(self.predicted, self.labels) & ~np.isnan(self.confidences)


def load_held_out(predictions: Path, corpus: Path, split: str) -> HeldOut:
    """A run's predictions on a labeled split. Raises UserError if they are of other images than the corpus holds."""
    manifest = read_manifest(corpus / split, ["key", "label"])
    parts = [part for _, part in iter_predictions(predictions / split)]
    keys = np.concatenate([part.keys for part in parts])
    if not np.array_equal(keys, manifest.column("key").to_numpy()):
        raise UserError(f"{predictions / split}: made from other images than {corpus / split} holds; run `dvc repro`")
    return HeldOut(
        keys=keys,
        labels=manifest.column("label").to_numpy(),
        predicted=np.concatenate([part.labels for part in parts]),
        confidences=np.concatenate([part.confidences for part in parts]),
        log_probs=np.concatenate([part.log_probs for part in parts]),
    )
