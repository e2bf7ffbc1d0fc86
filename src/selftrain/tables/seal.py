"""Seals: hashes in a Parquet file's own footer, so that a flipped bit does not pass for data.

Parquet readers check little of what they read. A sealed file has an entry ``selftrain.seal`` in its footer: 16 hex
digits (xxh3-64) of the footer itself, with blanks for the seal, then 16 of each column's bytes. Who reads some columns
checks those and the footer, whatever library reads them.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import xxhash

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

SEAL = b"selftrain.seal"
DIGITS, BLANK = 16, b"-"
"""The blank is no multiple of 16, so that it cannot pass for the length that stands before it."""
RISING = ("key", "offset")
TAIL = 8
"""Bytes after the footer: its length and the magic number."""


class BrokenSeal(OSError):
    """The bytes are not those that were written."""


def write_sealed(table: "pa.Table", path: Path) -> None:
    """Write a table of plain columns and seal it. Not atomic: ``path`` is a temporary one."""
    import pyarrow.parquet as pq

    blank = BLANK * DIGITS * (1 + table.num_columns)
    schema = table.schema.with_metadata(without_seal(table.schema.metadata))
    with pq.ParquetWriter(path, schema, compression="zstd", **_encodings(schema)) as writer:
        writer.write_table(table.replace_schema_metadata(schema.metadata))
        writer.add_key_value_metadata({SEAL: blank})
    metadata = pq.read_metadata(path)
    assert metadata.num_columns == table.num_columns, "a nested column"
    with path.open("r+b") as file:
        start, footer = _footer(file)
        place = footer.index(blank, footer.index(SEAL))
        seals = [_hash(footer), *(_hash(*chunks) for chunks in _columns(file, metadata, range(table.num_columns)))]
        file.seek(start + place)
        file.write("".join(seals).encode())


def _encodings(schema: "pa.Schema") -> dict[str, Any]:
    """Dictionaries for what repeats, differences for what rises: half the time and half the bytes of the defaults."""
    import pyarrow as pa

    rising = {field.name: "DELTA_BINARY_PACKED" for field in schema if field.name in RISING}
    repeating = (pa.string(), pa.large_string(), pa.int32())
    repeats = [field.name for field in schema if field.type in repeating]
    return {"use_dictionary": repeats, "column_encoding": rising}


def is_sealed(path: Path) -> bool:
    """Whether a file is there and is, to its last column, as it was written."""
    import pyarrow as pa

    try:
        check_seal(path)
    except (OSError, ValueError, pa.ArrowException):
        return False
    return True


def check_seal(path: Path, columns: Sequence[str] | None = None) -> None:
    """Raises BrokenSeal if a file has no seal, or if its footer or one of the columns is not as it was written.

    Null stands for all columns.
    """
    import pyarrow.parquet as pq

    with path.open("rb") as file:
        _, footer = _footer(file)
        named = footer.rfind(SEAL)
        if named < 0:
            raise BrokenSeal("it has no seal; an older version or another program wrote it")
        metadata = pq.read_metadata(path)
        seal = (metadata.metadata or {}).get(SEAL, b"")
        place = footer.find(seal, named)
        if len(seal) != DIGITS * (1 + metadata.num_columns) or place < 0:
            raise BrokenSeal("its seal is damaged")
        seals = [seal[start : start + DIGITS].decode("latin-1") for start in range(0, len(seal), DIGITS)]
        if _hash(footer[:place] + BLANK * len(seal) + footer[place + len(seal) :]) != seals[0]:
            raise BrokenSeal("its footer is not the one that was written")
        names = [metadata.schema.column(place).name for place in range(metadata.num_columns)]
        wanted = [place for place, name in enumerate(names) if columns is None or name in columns]
        for place, chunks in zip(wanted, _columns(file, metadata, wanted), strict=True):
            if _hash(*chunks) != seals[1 + place]:
                raise BrokenSeal(f"the column '{names[place]}' is not the one that was written")


def without_seal(metadata: dict[bytes, bytes] | None) -> dict[bytes, bytes]:
    """A schema's metadata less the seal of the file that it was read from."""
    return {key: value for key, value in (metadata or {}).items() if key != SEAL}


def _footer(file: BinaryIO) -> tuple[int, bytes]:
    """(where the footer begins, its bytes with those after it)."""
    end = file.seek(0, 2)
    file.seek(max(0, end - TAIL))
    start = end - TAIL - int.from_bytes(file.read(4), "little")
    if start < 0:
        raise BrokenSeal("it has no footer")
    file.seek(start)
    return start, file.read()


def _columns(file: BinaryIO, metadata: "pq.FileMetaData", places: Sequence[int]) -> Iterator[list[bytes]]:
    """The bytes of each of these columns, a chunk a row group."""
    for place in places:
        chunks = []
        for group in range(metadata.num_row_groups):
            column = metadata.row_group(group).column(place)
            first = column.dictionary_page_offset if column.has_dictionary_page else column.data_page_offset
            file.seek(first)
            chunks.append(file.read(column.total_compressed_size))
        yield chunks


def _hash(*chunks: bytes) -> str:
    digest = xxhash.xxh3_64()
    for chunk in chunks:
        digest.update(chunk)
    return digest.hexdigest()
