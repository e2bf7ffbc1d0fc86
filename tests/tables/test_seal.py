"""Any flipped bit of a table is noticed by who reads the column that it is in."""

from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from selftrain.plumbing.errors import UserError
from selftrain.tables.parquet import read_arrow, read_frame, scan, stamp, write_arrow, write_frame
from selftrain.tables.predictions import pack_rows

STAMP = b"selftrain.made_from"


def table(rows: int = 60) -> pa.Table:
    rng = np.random.default_rng(0)
    return pa.table(
        {
            "key": np.arange(rows),
            "label": pa.array([None if row % 7 == 0 else row % 5 for row in range(rows)], pa.int32()),
            "source": [f"a/{row}.jpg" for row in range(rows)],
            "log_probs": pack_rows(rng.random((rows, 3)).astype(np.float16)),
        }
    ).replace_schema_metadata({STAMP: b"model:code:images"})


def test_what_is_written_is_read(tmp_path: Path) -> None:
    path = tmp_path / "part.parquet"
    write_arrow(table(), path)
    assert read_arrow(path).equals(table(), check_metadata=True)
    assert pq.read_table(path).equals(table()), "by any other reader too"
    assert read_frame(path, ["label", "key"]).equals(pl.from_arrow(table().select(["label", "key"])))  # type: ignore[arg-type]
    write_arrow(read_arrow(path), path)
    assert read_arrow(path).equals(table(), check_metadata=True), "no seal of a seal"
    for frame in (pl.DataFrame({"a": [0.5], "b": ["x"]}), pl.DataFrame(schema={"a": pl.Int64})):
        write_frame(frame, path)
        assert read_frame(path).equals(frame)
        assert scan([path]).collect().equals(frame)
    for columns in (1, 2, 3, 7, 8, 20):
        write_arrow(pa.table({f"column {number}": [number] for number in range(columns)}), path)
        assert read_arrow(path).num_columns == columns
    several = pa.table({"key": np.arange(2_500_000)})  # of more than one row group
    write_arrow(several, path)
    assert pq.read_metadata(path).num_row_groups > 1
    assert read_arrow(path).equals(several)


def test_every_flipped_bit_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "part.parquet"
    write_arrow(table(), path)
    whole, harmless = path.read_bytes(), 0
    for place in range(len(whole)):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << place % 8
        path.write_bytes(damaged)
        try:
            found = read_arrow(path)
        except UserError:
            assert stamp(path, STAMP) is None, place
            continue
        # The magic number at the start.
        assert found.equals(table()), place
        harmless += 1
    assert harmless < 5


def test_only_what_is_read_is_looked_at(tmp_path: Path) -> None:
    path = tmp_path / "part.parquet"
    write_arrow(table(), path)
    column = pq.read_metadata(path).row_group(0).column(3)
    damaged = bytearray(path.read_bytes())
    damaged[(column.dictionary_page_offset or column.data_page_offset) + column.total_compressed_size - 1] ^= 1
    path.write_bytes(damaged)
    assert read_arrow(path, ["key", "label"]).equals(table().select(["key", "label"]))
    assert stamp(path, STAMP, []) == "model:code:images"
    assert stamp(path, STAMP) is None
    for read in (lambda: read_arrow(path, ["log_probs"]), lambda: read_frame(path), lambda: scan([path])):
        with pytest.raises(UserError, match=r"the column 'log_probs' is not the one that was written"):
            read()


def test_tables_of_others_are_not_taken_for_ours(tmp_path: Path) -> None:
    path = tmp_path / "theirs.parquet"
    pq.write_table(table(), path)
    with pytest.raises(UserError, match="it has no seal; an older version or another program wrote it"):
        read_arrow(path)
    path.write_bytes(b"PAR1")
    with pytest.raises(UserError, match="it has no footer"):
        read_arrow(path)
