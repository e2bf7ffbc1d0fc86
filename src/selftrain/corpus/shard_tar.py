"""A shard's tar, as it is written: tarfile's bytes of members without times and owners, in an eighth of its time."""

import json
import tarfile
from typing import Any

from selftrain.images.decode import EXTENSIONS

BLANK = tarfile.TarInfo("").tobuf(tarfile.USTAR_FORMAT)
"""The header of a member without a name and of no size."""
NAME, SIZE, CHECKSUM = 0, 124, 148
DIGITS = 11
"""Octal ones, of a size."""
SUM_OF_BLANK = sum(BLANK) - sum(BLANK[CHECKSUM : CHECKSUM + 8]) + 8 * ord(" ") - sum(BLANK[SIZE : SIZE + DIGITS])
"""A checksum counts its own field as spaces."""


class ShardTar:
    """A shard's tar being written: of each image its bytes, its class if it has one, and its source.

    ``file`` needs no more than ``write``.
    """

    def __init__(self, file: Any) -> None:
        self.file = file
        self._offset = 0

    def add(self, row: dict[str, Any], data: bytes) -> int:
        """Add an image, by its manifest row, and return the offset of its bytes."""
        key = str(row["key"])
        offset = self._add_member(f"{key}.{EXTENSIONS[row['format']]}", data)
        if row["label"] is not None:
            self._add_member(f"{key}.cls", str(row["label"]).encode())
        self._add_member(f"{key}.json", json.dumps({"source": row["source"]}, ensure_ascii=False).encode())
        return offset

    def close(self) -> None:
        """Write the tar's end: two blocks of zeros, and more of them to the end of a record."""
        end = self._offset + 2 * tarfile.BLOCKSIZE
        self.file.write(bytes(-(-end // tarfile.RECORDSIZE) * tarfile.RECORDSIZE - self._offset))

    def _add_member(self, name: str, data: bytes) -> int:
        padding = bytes(-len(data) % tarfile.BLOCKSIZE)
        self.file.write(b"".join((header(name.encode(), len(data)), data, padding)))
        offset = self._offset + tarfile.BLOCKSIZE
        self._offset = offset + len(data) + len(padding)
        return offset


def header(name: bytes, size: int) -> bytes:
    """A member's header (512 bytes): USTAR, a file of mode 644, of nobody and at no time."""
    assert len(name) <= tarfile.LENGTH_NAME and size < 8**DIGITS
    digits = b"%011o" % size
    checksum = b"%06o" % (SUM_OF_BLANK + sum(name) + sum(digits))
    return b"".join(
        (
            name,
            BLANK[len(name) : SIZE],
            digits,
            BLANK[SIZE + DIGITS : CHECKSUM],
            checksum,
            BLANK[CHECKSUM + 6 :],
        )
    )
