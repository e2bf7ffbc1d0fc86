"""Which labeled images a run trains on and is validated on."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from selftrain.counters import Stream, mix
from selftrain.images.index import ImageIndex, load_index, load_splits
from selftrain.params.train import Resplit
from selftrain.plumbing.errors import UserError
from selftrain.tables.predictions import iter_predictions


def labeled_and_validation(corpus: Path, resplit: Resplit | None, seed: int) -> tuple[ImageIndex, ImageIndex]:
    """The corpus's own splits, or a cut of one's own."""
    if resplit is None:
        return load_index(corpus / "labeled"), load_index(corpus / "validation")
    return cut(load_splits(corpus, resplit.splits), resplit.validation, seed)


def cut(images: ImageIndex, validation: float, seed: int) -> tuple[ImageIndex, ImageIndex]:
    """(trained on, held out): in every class the share ``validation`` is held out, drawn by seed and key.

    A class keeps at least one image on each side, if it has two.
    """
    held_out = np.zeros(len(images), dtype=bool)
    uniforms = mix(seed, Stream.RESPLIT, images.keys)
    for label in np.unique(images.labels):
        members = np.flatnonzero(images.labels == label)
        count = min(max(1, round(validation * len(members))), len(members) - 1)
        held_out[members[np.argsort(uniforms[members], kind="stable")[:count]]] = True
    return images.take(~held_out), images.take(held_out)


def labeled_log_probs(images: ImageIndex, predictions: Path) -> NDArray[np.float16]:
    """A teacher's log-probabilities (N, C) of labeled images, from its table of the labeled split.

    Raises UserError if the table lacks some of them.
    """
    parts = [part for _, part in iter_predictions(predictions)]
    keys = np.concatenate([part.keys for part in parts])
    places = np.searchsorted(keys, images.keys)
    found = places < len(keys)
    found[found] = keys[places[found]] == images.keys[found]
    if not found.all():
        raise UserError(
            f"{predictions}: has no prediction of {np.sum(~found)} of the {len(images)} labeled images; run "
            "`dvc repro`, or, with `resplit`, distill on unlabeled images only"
        )
    return np.concatenate([part.log_probs for part in parts])[places]
