"""Embeddings: the outputs of a run's penultimate layer. ``predict`` writes them if `predict.embeddings` is set.

``predictions/<pipeline>/<run>/embeddings/<split>/part-*.parquet`` has one part a shard. Rows are those of the
prediction table: ``key, embedding``, D float16 numbers in a fixed-size binary. They have their own folders, so that
readers of predictions do not load them.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from selftrain.plumbing.errors import UserError
from selftrain.tables.keys import part_name, shard_of
from selftrain.tables.parquet import read_arrow, write_arrow
from selftrain.tables.predictions import MADE_FROM, pack_rows, unpack_rows

FOLDER = "embeddings"


@dataclass(frozen=True)
class Embeddings:
    """Some images' embeddings, in key order."""

    keys: NDArray[np.int64]  # (N,)
    vectors: NDArray[np.float16]  # (N, D)


def embeddings_folder(predictions: Path, split: str = "unlabeled") -> Path:
    """Where a run's embeddings of a split lie, by the folder of its predictions."""
    return predictions / FOLDER / split


def existing_embeddings(predictions: Path, needed_by: str, split: str = "unlabeled") -> Path:
    """The same folder. Raises UserError if there is none, with the name of what needs it."""
    folder = embeddings_folder(predictions, split)
    if not predictions.is_dir():
        raise UserError(f"{predictions}: nothing was predicted yet, and {needed_by} needs it; run `dvc repro`")
    if not folder.is_dir():
        raise UserError(
            f"{predictions}: has no embeddings, which {needed_by} needs; set `predict.embeddings: true` and run "
            "`dvc repro`"
        )
    return folder


def write_embeddings(folder: Path, shard: int, embeddings: Embeddings, made_from: str) -> None:
    """Write one part, whole or not at all."""
    table = pa.table({"key": pa.array(embeddings.keys, pa.int64()), "embedding": pack_rows(embeddings.vectors)})
    write_arrow(table.replace_schema_metadata({MADE_FROM: made_from.encode()}), folder / part_name(shard))


def iter_embeddings(folder: Path) -> Iterator[Embeddings]:
    """All embeddings of a split, part by part, in key order."""
    return map(_read_part, sorted(folder.glob("part-*.parquet")))


def read_embeddings(folder: Path, keys: set[int]) -> Embeddings:
    """The embeddings of some images, in key order; only the parts that hold them are read.

    Raises UserError if an image has none.
    """
    wanted = np.array(sorted(keys), dtype=np.int64)
    found_keys, found = [np.empty(0, np.int64)], []
    for shard in sorted({shard_of(int(key)) for key in wanted}):
        path = folder / part_name(shard)
        if not path.exists():
            continue
        part = _read_part(path)
        rows = np.isin(part.keys, wanted)
        found_keys.append(part.keys[rows])
        found.append(part.vectors[rows])
    embeddings = Embeddings(
        np.concatenate(found_keys), np.concatenate(found) if found else np.empty((0, 0), np.float16)
    )
    if not np.array_equal(embeddings.keys, wanted):
        raise UserError(f"{folder}: has no embedding of some images; run `dvc repro`")
    return embeddings


def _read_part(path: Path) -> Embeddings:
    table = read_arrow(path).combine_chunks()
    return Embeddings(table.column("key").to_numpy(), unpack_rows(table.column("embedding"), np.dtype(np.float16)))
