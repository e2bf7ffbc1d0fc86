"""What is trained on as unlabeled: the selected images, how often each, and the teacher's prediction of each."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from selftrain.calibration import shift_log_probs
from selftrain.images.index import COLUMNS, ImageIndex, IndexColumns
from selftrain.plumbing.columns import Column
from selftrain.plumbing.errors import UserError
from selftrain.tables.keys import shard_of_part
from selftrain.tables.manifest import iter_manifest, manifest_parts
from selftrain.tables.parquet import read_arrow
from selftrain.tables.predictions import read_part
from selftrain.tables.selection import CORRECTED, selection_parts, selection_shift

IMPOSSIBLE = np.float16(-30000)
"""A log-probability that is zero as a probability at any temperature in use, and can be multiplied by zero."""


@dataclass(frozen=True)
class PseudoLabels:
    """The selected images of the unlabeled split, N of them, and the epoch that repeats them."""

    index: ImageIndex
    log_probs: NDArray[np.float16] | None  # (N, C)
    """None where nothing reads them."""
    known: NDArray[np.int32]
    """(N,) The class of images that a person corrected, -1 elsewhere."""
    weights: NDArray[np.float32]
    """(N,) What each weighs in the loss."""
    epoch: NDArray[np.int32]
    """The balanced epoch: places in ``index``, each as often as its ``copies``."""


def load_pseudo_labels(
    split_folder: Path, selection: Path, predictions: Path, *, with_log_probs: bool = True
) -> PseudoLabels:
    """Gather the images with copies from a selection, and their teacher's log-probabilities, if they are wanted; a
    corrected image's are those of the person who corrected it, who is sure.

    One pass, part by part. What is gathered may be larger than memory: processes and loader workers share it.
    """
    images = IndexColumns(split_folder)
    known, weights, epoch = Column(np.int32), Column(np.float32), Column(np.int32)
    log_probs: Column[np.float16] | None = None
    shift = selection_shift(selection)
    parts = {shard_of_part(part.name): part for part in selection_parts(selection)}
    other_images = f"{selection}: was made from other images than {split_folder} holds; run `dvc repro`"
    if list(parts) != [shard_of_part(part.name) for part in manifest_parts(split_folder)]:
        raise UserError(other_images)
    count = 0
    for shard, of_part in iter_manifest(split_folder, list(COLUMNS)):
        part = parts[shard]
        rows = read_arrow(part, ["key", "copies", "label", "weight", "decision"])
        if not rows["key"].equals(of_part["key"]):
            raise UserError(other_images)
        copies, labels = rows["copies"].to_numpy(), rows["label"].to_numpy()
        corrected = pc.equal(rows["decision"], CORRECTED).to_numpy()
        selected = copies > 0
        images.add(of_part, selected)
        known.append(np.where(corrected, labels, -1)[selected])
        weights.append(rows["weight"].to_numpy()[selected])
        chosen = int(selected.sum())
        epoch.append(np.repeat(np.arange(count, count + chosen, dtype=np.int32), copies[selected]))
        count += chosen
        if with_log_probs:
            of_teacher = _targets(read_part(predictions / part.name).log_probs, labels, corrected, shift)
            log_probs = log_probs or Column(np.float16, of_teacher.shape[1])
            log_probs.append(of_teacher[selected])
    gathered = None if log_probs is None else log_probs.array()
    return PseudoLabels(images.index(), gathered, known.array(), weights.array(), epoch.array())


def labeled_as_pool(labeled: ImageIndex, num_classes: int) -> PseudoLabels:
    """The labeled images as a pool of their own, each once an epoch; the prediction of each is its label."""
    log_probs = np.full((len(labeled), num_classes), IMPOSSIBLE)
    log_probs[np.arange(len(labeled)), labeled.labels] = 0
    known = np.full(len(labeled), -1, np.int32)
    weights = np.ones(len(labeled), np.float32)
    return PseudoLabels(labeled, log_probs, known, weights, np.arange(len(labeled), dtype=np.int32))


def _targets(
    of_teacher: NDArray[np.float16],
    labels: NDArray[np.int32],
    corrected: NDArray[np.bool_],
    shift: list[float] | None,
) -> NDArray[np.float16]:
    """What a part's images are said to be, (N, C): by the teacher, aligned to the prior, or by who corrected them."""
    rows = of_teacher.copy()
    if shift is not None:
        rows = shift_log_probs(rows, np.array(shift)).astype(np.float16)
    rows[corrected] = IMPOSSIBLE
    rows[corrected, labels[corrected]] = 0
    return rows
