"""The prediction table: a teacher's prediction of every image of a split.

``predictions/<run>/<split>/part-*.parquet``, one part a shard, rows as in the manifest:
``key, label, confidence, log_probs``. ``log_probs`` is C float16 numbers in a fixed-size binary (read
3–15 times faster than a fixed-size list); logarithms, because float16 probabilities flush the tail to zero,
and because any temperature can be applied to them later without the network. With ``predict.top_k`` the pool's
table has K + 1 of them and a column ``classes``: see ``tables/log_probs.py``.
"""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from selftrain.plumbing.errors import UserError
from selftrain.tables.keys import part_name, shard_of_part
from selftrain.tables.log_probs import LogProbs, class_dtype, likeliest
from selftrain.tables.parquet import column_names, read_arrow, stamp, write_arrow

if TYPE_CHECKING:
    import polars as pl

Number = TypeVar("Number", bound=np.generic)

MADE_FROM = b"selftrain.made_from"
EMBEDDED_CLASSES = b"selftrain.classes"
PRECISION = b"selftrain.precision"


@dataclass(frozen=True)
class PredictionPart:
    """One part of a prediction table; all arrays have one row an image."""

    keys: NDArray[np.int64]  # (N,)
    labels: NDArray[np.int32]  # (N,)
    confidences: NDArray[np.float32]  # (N,)
    log_probs: NDArray[np.float16]  # (N, C)


def write_part(
    folder: Path,
    shard: int,
    part: PredictionPart,
    classes: list[str],
    made_from: str,
    bf16: bool = False,
    top_k: int | None = None,
) -> None:
    """Write one part, whole or not at all. ``made_from`` names the model and the images it was made from; ``bf16`` says
    in which precision; of the classes the ``top_k`` likeliest are kept, None: all.
    """
    num_classes = part.log_probs.shape[1]
    assert len(classes) == num_classes and part.log_probs.dtype == np.float16
    kept = likeliest(part.log_probs, top_k)
    columns = {
        "key": pa.array(part.keys, pa.int64()),
        "label": pa.array(part.labels, pa.int32()),
        "confidence": pa.array(part.confidences, pa.float32()),
        "log_probs": pack_rows(kept.values),
    }
    if kept.classes is not None:
        columns["classes"] = pack_rows(kept.classes)
    table = pa.table(columns)
    stamps = {
        MADE_FROM: made_from.encode(),
        EMBEDDED_CLASSES: json.dumps(classes).encode(),
        PRECISION: b"bf16" if bf16 else b"fp32",
    }
    write_arrow(table.replace_schema_metadata(stamps), folder / part_name(shard))


def made_from_text(weights: str, made_with: str, images: str) -> str:
    """What a part is stamped with: digests of the model's weights, of all else that made it, and of the images."""
    return f"{weights}:{made_with}:{images}"


def weights_of(folder: Path) -> set[str]:
    """The sha256 of the weights that the parts of a prediction table were made with: one, if it is all of a piece."""
    return {str(stamp(part, MADE_FROM, [])).partition(":")[0] for part in prediction_parts(folder)}


def made_from(folder: Path, shard: int) -> str | None:
    """What a part was made from; None if there is no part, or if any of it is damaged."""
    return stamp(folder / part_name(shard), MADE_FROM)


def prediction_parts(folder: Path) -> list[Path]:
    """The parts of a prediction table, in shard order. Raises UserError if there is none."""
    parts = sorted(folder.glob("part-*.parquet"))
    if not parts:
        raise UserError(f"{folder}: no predictions there; run `dvc repro` for the stage that makes them")
    return parts


def read_part(path: Path) -> PredictionPart:
    """Read one part; its log-probabilities are of all classes, whatever was kept."""
    table = read_arrow(path).combine_chunks()
    return PredictionPart(
        keys=table.column("key").to_numpy(),
        labels=table.column("label").to_numpy(),
        confidences=table.column("confidence").to_numpy(),
        log_probs=_log_probs(table).of_all_classes(),
    )


def read_log_probs(path: Path) -> LogProbs:
    """The log-probabilities of one part, as they are kept."""
    columns = [name for name in column_names(path) if name in ("log_probs", "classes")]
    return _log_probs(read_arrow(path, columns).combine_chunks())


def _log_probs(table: pa.Table) -> LogProbs:
    num_classes = len(json.loads(table.schema.metadata[EMBEDDED_CLASSES]))
    values = unpack_rows(table.column("log_probs"), np.dtype(np.float16))
    classes = None
    if "classes" in table.column_names:
        classes = unpack_rows(table.column("classes"), class_dtype(num_classes))
    return LogProbs(values, classes, num_classes)


def pack_rows(rows: NDArray[np.generic]) -> pa.Array:
    """(N, D) numbers as a column of N fixed-size binaries."""
    buffer = pa.py_buffer(np.ascontiguousarray(rows))
    return pa.FixedSizeBinaryArray.from_buffers(pa.binary(rows.itemsize * rows.shape[1]), len(rows), [None, buffer])


def unpack_rows(column: pa.ChunkedArray, dtype: np.dtype[Number]) -> NDArray[Number]:
    """The inverse of ``pack_rows``, of a column whose chunks were combined: (N, D)."""
    width = column.type.byte_width // dtype.itemsize
    rows = [np.frombuffer(chunk.buffers()[1], dtype) for chunk in column.chunks]
    flat = np.concatenate([np.empty(0, dtype), *rows])[: len(column) * width]
    return flat.reshape(len(column), width)


def iter_predictions(folder: Path) -> Iterator[tuple[int, PredictionPart]]:
    """A prediction table, part by part: (shard number, part)."""
    for path in prediction_parts(folder):
        yield shard_of_part(path.name), read_part(path)


def prediction_classes(folder: Path) -> list[str]:
    """The class names by index that a prediction table was made with. Raises UserError if its first part is damaged."""
    part = prediction_parts(folder)[0]
    classes = stamp(part, EMBEDDED_CLASSES, [])
    if not classes:
        raise UserError(f"{part}: the table cannot be read; restore it with `dvc checkout`, or predict again")
    return list(json.loads(classes))


def made_from_digest(folder: Path) -> str:
    """A short hash of what every part of a prediction table was made from."""
    digest = hashlib.sha256()
    for path in prediction_parts(folder):
        digest.update(f"{path.name} {stamp(path, MADE_FROM, [])}\n".encode())
    return digest.hexdigest()[:32]


def no_prediction() -> "dict[str, pl.Expr]":
    """What makes a row of ``key, label, confidence`` no prediction, whatever its classes: a reason, and where it holds.

    NaN is a confidence: a teacher may not have learned.
    """
    import polars as pl

    key, label, confidence = pl.col("key"), pl.col("label"), pl.col("confidence")
    return {
        "key, label or confidence is empty": pl.any_horizontal(key.is_null(), label.is_null(), confidence.is_null()),
        "confidence is not from 0 to 1": ~confidence.is_between(0, 1 + 1e-6) & confidence.is_not_nan(),
    }
