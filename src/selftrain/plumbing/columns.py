"""Columns of numbers that may be longer than memory: small ones are arrays, large ones files that are mapped.

Processes that are forked share both. A file has no name, so that whatever ends the process frees its space.
"""

import tempfile
from typing import IO, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from selftrain.plumbing.locks import WORK
from selftrain.plumbing.room import writing

Number = TypeVar("Number", bound=np.generic)

IN_MEMORY = 64 * 2**20
"""Bytes from which on a column is a file."""


class Column(Generic[Number]):
    """A column that grows at its end. ``width``: numbers in a row, if it has more than one."""

    def __init__(self, dtype: type[Number], width: int | None = None) -> None:
        self.dtype, self.row_shape = np.dtype(dtype), () if width is None else (width,)
        self._parts: list[NDArray[Number]] = []
        self._bytes, self._rows = 0, 0
        self._file: IO[bytes] | None = None

    def append(self, values: NDArray[np.generic]) -> None:
        """Add rows, (N,) or (N, width). Raises UserError if the disk is full."""
        rows = np.ascontiguousarray(values, self.dtype)
        assert rows.shape[1:] == self.row_shape
        self._parts.append(rows)
        self._rows += len(rows)
        self._bytes += rows.nbytes
        if self._file is None and self._bytes > IN_MEMORY:
            WORK.mkdir(exist_ok=True)
            self._file = tempfile.TemporaryFile(dir=WORK)  # noqa: SIM115
        if self._file is not None:
            with writing(WORK):
                for part in self._parts:
                    self._file.write(part.data)
            self._parts.clear()

    def array(self) -> NDArray[Number]:
        """All rows, read only where they are a file. Nothing can be added after it."""
        shape = (self._rows, *self.row_shape)
        if self._file is None:
            return np.concatenate([np.empty((0, *self.row_shape), self.dtype), *self._parts])
        with writing(WORK):
            self._file.flush()
        return np.memmap(self._file, self.dtype, "r", shape=shape)


def taken(
    column: NDArray[Number], rows: NDArray[np.int64] | NDArray[np.bool_], at_once: int = 2**20
) -> NDArray[Number]:
    """``column[rows]`` of a column (N,), as a column."""
    found: Column[Number] = Column(column.dtype.type)
    if rows.dtype == bool:
        for start in range(0, len(column), at_once):
            found.append(column[start : start + at_once][rows[start : start + at_once]])
    else:
        for start in range(0, len(rows), at_once):
            found.append(column[rows[start : start + at_once]])
    return found.array()
