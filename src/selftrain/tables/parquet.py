"""Parquet files: written with a seal, and read only if what is read is what was written."""

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from selftrain.plumbing.errors import UserError, one_line
from selftrain.plumbing.files import atomic_path
from selftrain.tables.seal import check_seal, without_seal, write_sealed

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
    except (pa.ArrowException, OSError, ValueError, pl.exceptions.ComputeError) as error:
        reason = one_line(error)
        raise UserError(f"{place}: the table cannot be read ({reason}); restore it with `dvc checkout`") from None


def read_frame(path: Path, columns: Sequence[str] | None = None) -> "pl.DataFrame":
    """A Parquet file as a polars frame. Raises UserError if it is missing or damaged."""
    import polars as pl

    with reading(path):
        check_seal(path, columns)
        return pl.read_parquet(path, columns=None if columns is None else list(columns), glob=False)


def read_arrow(path: Path, columns: Sequence[str] | None = None) -> "pa.Table":
    """A Parquet file as an arrow table. Raises UserError if it is missing or damaged."""
    import pyarrow.parquet as pq

    with reading(path):
        check_seal(path, columns)
        table = pq.read_table(path, columns=None if columns is None else list(columns))
        return table.replace_schema_metadata(without_seal(table.schema.metadata))


def row_count(path: Path) -> int:
    """How many rows a Parquet file has, by its footer. Raises UserError if it is missing or damaged."""
    import pyarrow.parquet as pq

    with reading(path):
        return int(pq.read_metadata(path).num_rows)


def column_names(path: Path) -> list[str]:
    """Of a Parquet file. Raises UserError if it is missing or damaged."""
    import pyarrow.parquet as pq

    with reading(path):
        check_seal(path, [])
        return list(pq.read_schema(path).names)


def scan(paths: Sequence[Path]) -> "pl.LazyFrame":
    """Parquet files as a lazy polars frame. Raises UserError if one is missing or damaged."""
    import polars as pl

    for path in paths:
        with reading(path):
            check_seal(path)
    return pl.scan_parquet(list(paths), glob=False)


def write_arrow(table: "pa.Table", path: Path) -> None:
    """Write a sealed Parquet file, whole or not at all."""
    with atomic_path(path) as temporary:
        write_sealed(table, temporary)


def write_frame(frame: "pl.DataFrame", path: Path) -> None:
    """Write a sealed Parquet file, whole or not at all."""
    import polars as pl

    write_arrow(frame.to_arrow(compat_level=pl.CompatLevel.oldest()), path)


def stamp(path: Path, name: bytes, columns: Sequence[str] | None = None) -> str | None:
    """An entry of ``stamps``, empty if the file lacks it; None if there is no file, or if it is damaged."""
    found = stamps(path, columns)
    return None if found is None else found.get(name, b"").decode()


def stamps(path: Path, columns: Sequence[str] | None = None) -> dict[bytes, bytes] | None:
    """The entries of a file's footer; None if there is no file, or if its footer or one of the columns (null: all) is
    damaged.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        check_seal(path, columns)
        return dict(pq.read_metadata(path).metadata or {})
    except (OSError, ValueError, pa.ArrowException):
        return None


def collect(frame: "pl.LazyFrame", place: Path) -> "pl.DataFrame":
    """Run a query over the files of a place, not all of them in memory. Raises UserError if one is damaged."""
    with reading(place):
        return frame.collect(engine="streaming")
