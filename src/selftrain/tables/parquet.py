"""Reading Parquet files: what is damaged is named, and nothing else passes for damage."""

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from selftrain.plumbing.errors import UserError

if TYPE_CHECKING:
    import polars as pl
    import pyarrow as pa


@contextlib.contextmanager
def reading(place: Path) -> Iterator[None]:
    """While it lasts, a file or folder is read: an error of the library that reads it is a UserError naming it."""
    import polars as pl
    import pyarrow as pa

    try:
        yield
    except FileNotFoundError:
        raise UserError(f"{place}: no such file; `dvc repro` or `dvc checkout` brings it") from None
    except (pa.ArrowException, OSError, pl.exceptions.ComputeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{place}: the table cannot be read ({reason}); restore it with `dvc checkout`") from None


def read_frame(path: Path, columns: Sequence[str] | None = None) -> "pl.DataFrame":
    """A Parquet file as a polars frame. Raises UserError if it is missing or damaged."""
    import polars as pl

    with reading(path):
        return pl.read_parquet(path, columns=None if columns is None else list(columns), glob=False)


def read_arrow(path: Path, columns: Sequence[str] | None = None) -> "pa.Table":
    """A Parquet file as an arrow table. Raises UserError if it is missing or damaged."""
    import pyarrow.parquet as pq

    with reading(path):
        return pq.read_table(path, columns=None if columns is None else list(columns))


def collect(frame: "pl.LazyFrame", place: Path) -> "pl.DataFrame":
    """Run a query over the files of a place, not all of them in memory. Raises UserError if one is damaged."""
    with reading(place):
        return frame.collect(engine="streaming")
