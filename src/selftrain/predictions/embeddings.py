"""Embeddings: a run's penultimate layer, for maps and likenesses; written by ``predict`` if it is asked to.

``predictions/<run>/embeddings/part-*.parquet``, one part a shard of the unlabeled split, rows as in the prediction
table: ``key, embedding``, the latter D float16 numbers in a fixed-size binary. A folder of their own, so that whoever
reads predictions does not pay for them.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from selftrain.corpus.keys import part_name, shard_of
from selftrain.files import atomic_path
from selftrain.predictions.table import MADE_FROM, pack_rows, unpack_rows

FOLDER = "embeddings"


@dataclass(frozen=True)
class Embeddings:
    """Some images' embeddings, in key order."""

    keys: NDArray[np.int64]  # (N,)
    vectors: NDArray[np.float16]  # (N, D)


def write_embeddings(folder: Path, shard: int, embeddings: Embeddings, made_from: str) -> None:
    """Write one part, whole or not at all."""
    table = pa.table({"key": pa.array(embeddings.keys, pa.int64()), "embedding": pack_rows(embeddings.vectors)})
    with atomic_path(folder / part_name(shard)) as temporary:
        pq.write_table(table.replace_schema_metadata({MADE_FROM: made_from.encode()}), temporary, compression="zstd")


def read_embeddings(folder: Path, keys: set[int]) -> Embeddings:
    """The embeddings of some images, those of them that are there; only the parts that hold them are read."""
    wanted = np.array(sorted(keys), dtype=np.int64)
    found_keys, found = [np.empty(0, np.int64)], []
    for shard in sorted({shard_of(int(key)) for key in wanted}):
        path = folder / part_name(shard)
        if not path.exists():
            continue
        table = pq.read_table(path).combine_chunks()
        own = table.column("key").to_numpy()
        rows = np.isin(own, wanted)
        found_keys.append(own[rows])
        found.append(unpack_rows(table.column("embedding"))[rows])
    return Embeddings(np.concatenate(found_keys), np.concatenate(found) if found else np.empty((0, 0), np.float16))
