"""Robustness tables: a run's predictions under every condition.

``<folder>/<suite>/<name>.parquet``: ``key, label, level, predicted, confidence``. ``label`` is the image's class,
``level`` the severity, frame, ε or pass. Tables of other folders have ``log_probs`` too.
"""

from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from selftrain.plumbing.errors import UserError
from selftrain.tables.parquet import read_frame, stamp, write_arrow

if TYPE_CHECKING:
    import polars as pl

MADE_FROM = b"selftrain.made_from"


def write_table(path: Path, columns: dict[str, NDArray[np.generic]], made_from: str) -> None:
    """Write one condition's table, whole or not at all; a column (N, C) becomes fixed-size binary."""
    table = pa.table({name: _column(column) for name, column in columns.items()})
    write_arrow(table.replace_schema_metadata({MADE_FROM: made_from.encode()}), path)


def _column(values: NDArray[np.generic]) -> "pa.Array":
    if values.ndim == 1:
        return pa.array(values)
    row_bytes = values.dtype.itemsize * values.shape[1]
    packed = pa.py_buffer(np.ascontiguousarray(values))
    return pa.FixedSizeBinaryArray.from_buffers(pa.binary(row_bytes), len(values), [None, packed])


def made_from(path: Path) -> str | None:
    """What a table was made from; None if there is none, or if any of it is damaged."""
    return stamp(path, MADE_FROM)


def read_suite(folder: Path, suite: str) -> "dict[str, pl.DataFrame]":
    """A suite's tables by condition, empty if the run was not put through it."""
    return {path.stem: read_frame(path) for path in sorted((folder / suite).glob("*.parquet"))}


def table_runs(tables: Path, names: Collection[str] | None) -> list[Path]:
    """The runs that have robustness tables, of those named and in that order. Raises UserError if there is none.

    DVC leaves the tables of a run that was taken out of the params file where they are: hence the names.
    """
    there = {path.parent.name: path.parent for path in sorted(tables.glob("*/run.json"))}
    runs = [there[name] for name in (there if names is None else names) if name in there]
    if not runs:
        raise UserError(f"{tables}: no robustness tables there; run `dvc repro pipelines/robustness/dvc.yaml`")
    return runs
