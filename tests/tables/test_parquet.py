"""A damaged table is named; an error of ours stays what it is."""

from pathlib import Path

import polars as pl
import pyarrow as pa
import pytest

from selftrain.plumbing.errors import UserError
from selftrain.tables.parquet import collect, read_arrow, read_frame, reading, write_arrow


@pytest.fixture
def table(tmp_path: Path) -> Path:
    write_arrow(pa.table({"key": [1, 2, 3]}), tmp_path / "part-00000.parquet")
    return tmp_path / "part-00000.parquet"


@pytest.mark.parametrize("read", [read_frame, read_arrow, lambda path: collect(pl.scan_parquet(path), path)])
@pytest.mark.parametrize("damage", [lambda data: data[:-9], lambda data: b"", lambda data: b"PAR1 nothing PAR1"])
def test_what_is_damaged_is_named(table: Path, read, damage) -> None:  # type: ignore[no-untyped-def]
    assert len(read(table)) == 3
    table.write_bytes(damage(table.read_bytes()))
    with pytest.raises(UserError, match=r"part-00000\.parquet: the table cannot be read \(.+dvc checkout"):
        read(table)


@pytest.mark.parametrize("read", [read_frame, read_arrow])
def test_what_is_missing_is_named(tmp_path: Path, read) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(UserError, match=r"none\.parquet: no such file"):
        read(tmp_path / "none.parquet")


@pytest.mark.parametrize(
    "error", [KeyError("label"), AssertionError("ours"), pl.exceptions.ColumnNotFoundError("label")]
)
def test_our_own_errors_do_not_pass_for_damage(table: Path, error: Exception) -> None:
    with pytest.raises(type(error)), reading(table):
        raise error
