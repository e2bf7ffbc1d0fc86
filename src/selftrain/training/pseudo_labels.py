"""What is trained on as unlabeled: the selected images, how often each, and the teacher's prediction of each."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from selftrain.images.index import COLUMNS, ImageIndex, IndexColumns
from selftrain.plumbing.columns import Column
from selftrain.plumbing.errors import UserError
from selftrain.tables.keys import shard_of_part
from selftrain.tables.manifest import iter_manifest, manifest_parts
from selftrain.tables.parquet import read_arrow
from selftrain.tables.predictions import read_log_probs
from selftrain.tables.selection import CORRECTED, selection_parts, selection_shift
from selftrain.training.soft_labels import LogProbsColumn, SoftLabels, of_labels


@dataclass(frozen=True)
class PseudoLabels:
    """The selected images of the unlabeled split, N of them, and the epoch that repeats them."""

    index: ImageIndex
    soft_labels: SoftLabels | None
    """None where nothing reads them."""
    known: NDArray[np.int32]
    """(N,) The class of images that a person corrected, -1 elsewhere."""
    weights: NDArray[np.float32]
    """(N,) What each weighs in the loss."""
    epoch: NDArray[np.int32]
    """The balanced epoch: places in ``index``, each as often as its ``copies``."""


def load_pseudo_labels(
    split_folder: Path, selection: Path, predictions: Path, *, with_soft_labels: bool = True
) -> PseudoLabels:
    """Gather the images with copies from a selection, and their soft labels, if they are wanted; a corrected image's
    is of the person who corrected it, who is sure.

    One pass, part by part. What is gathered may be larger than memory: processes and loader workers share it.
    """
    images = IndexColumns(split_folder)
    known, weights, epoch = Column(np.int32), Column(np.float32), Column(np.int32)
    of_teacher: LogProbsColumn | None = None
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
        if with_soft_labels:
            rows_of_teacher = read_log_probs(predictions / part.name)[selected]
            of_teacher = of_teacher or LogProbsColumn(rows_of_teacher)
            of_teacher.append(rows_of_teacher)
    corrections = known.array()
    soft_labels = None
    if of_teacher is not None:
        shift = selection_shift(selection)
        soft_labels = SoftLabels(of_teacher.log_probs(), corrections, None if shift is None else np.array(shift))
    return PseudoLabels(images.index(), soft_labels, corrections, weights.array(), epoch.array())


def labeled_as_pool(labeled: ImageIndex, num_classes: int) -> PseudoLabels:
    """The labeled images as a pool of their own, each once an epoch; the prediction of each is its label."""
    soft_labels = of_labels(labeled.labels, num_classes)
    known = np.full(len(labeled), -1, np.int32)
    weights = np.ones(len(labeled), np.float32)
    return PseudoLabels(labeled, soft_labels, known, weights, np.arange(len(labeled), dtype=np.int32))
