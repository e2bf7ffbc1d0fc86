"""What is trained on as unlabeled: the selected images, how often each, and the teacher's prediction of each."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from selftrain.calibration import shift_log_probs
from selftrain.images.loading import ImageIndex, load_index
from selftrain.plumbing.errors import UserError
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
    split_folder: Path, selection: Path, predictions: Path, scratch: Path, *, with_log_probs: bool = True
) -> PseudoLabels:
    """Gather the images with copies from a selection, and their teacher's log-probabilities, if they are wanted; a
    corrected image's are those of the person who corrected it, who is sure.

    The log-probabilities go to a file in ``scratch`` that is mapped, not read: processes and loader workers
    share it, and it may be larger than memory.
    """
    index = load_index(split_folder)
    columns = ["key", "copies", "label", "weight", "decision"]
    rows = [read_arrow(part, columns) for part in selection_parts(selection)]
    keys, copies, labels, weights = (np.concatenate([table[name].to_numpy() for table in rows]) for name in columns[:4])
    corrected = np.concatenate([pc.equal(table["decision"], CORRECTED).to_numpy() for table in rows])
    if not np.array_equal(keys, index.keys):
        raise UserError(f"{selection}: was made from other images than {split_folder} holds; run `dvc repro`")
    selected = copies > 0
    chosen = index.take(selected)
    log_probs = _gather_log_probs(predictions, selection, selected, scratch) if with_log_probs else None
    known = np.where(corrected, labels, -1)[selected].astype(np.int32)
    epoch = np.repeat(np.arange(len(chosen), dtype=np.int32), copies[selected])
    return PseudoLabels(chosen, log_probs, known, weights[selected], epoch)


def labeled_as_pool(labeled: ImageIndex, num_classes: int) -> PseudoLabels:
    """The labeled images as a pool of their own, each once an epoch; the prediction of each is its label."""
    log_probs = np.full((len(labeled), num_classes), IMPOSSIBLE)
    log_probs[np.arange(len(labeled)), labeled.labels] = 0
    known = np.full(len(labeled), -1, np.int32)
    weights = np.ones(len(labeled), np.float32)
    return PseudoLabels(labeled, log_probs, known, weights, np.arange(len(labeled), dtype=np.int32))


def _gather_log_probs(
    predictions: Path, selection: Path, selected: NDArray[np.bool_], scratch: Path
) -> NDArray[np.float16]:
    """The selected rows of a prediction table, (N, C), as a mapped file without a name."""
    gathered: np.memmap | None = None
    shift = selection_shift(selection)
    seen, written = 0, 0
    for part in selection_parts(selection):
        rows = read_part(predictions / part.name).log_probs.copy()
        if shift is not None:
            rows = shift_log_probs(rows, np.array(shift)).astype(np.float16)
        decided = read_arrow(part, ["label", "decision"])
        corrected = pc.equal(decided["decision"], CORRECTED).to_numpy()
        rows[corrected] = IMPOSSIBLE
        rows[corrected, decided["label"].to_numpy()[corrected]] = 0
        if gathered is None:
            scratch.mkdir(parents=True, exist_ok=True)
            path = scratch / f"log_probs-{np.random.default_rng().integers(2**62)}.f16"
            gathered = np.memmap(path, np.float16, "w+", shape=(int(selected.sum()), rows.shape[1]))
            # Unlinked at once: whatever ends this process frees the space.
            path.unlink()
        taken = rows[selected[seen : seen + len(rows)]]
        gathered[written : written + len(taken)] = taken
        seen, written = seen + len(rows), written + len(taken)
    assert gathered is not None and seen == len(selected) and written == len(gathered)
    return gathered
