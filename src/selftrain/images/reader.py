"""Random access to images: (shard, offset, size) → bytes, wherever the shard lies."""

import mmap
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import xxhash

from selftrain.plumbing.errors import UserError

if TYPE_CHECKING:
    import polars as pl

OPEN_SHARDS = 256
MEND = "`selftrain ingest` writes it anew from its source, `dvc checkout` restores it"


def content_hash(data: bytes) -> int:
    """xxh3-64 of an image's bytes, signed as Parquet has it: ``xxh3`` in the manifest."""
    return int.from_bytes(xxhash.xxh3_64_digest(data), "big", signed=True)


class ShardReader:
    """Reads image bytes from a split's shards: local files through mmap, URLs through range requests.

    Safe to use from forked loader workers as long as each makes its own reader or the parent never read.
    """

    def __init__(self, split_folder: Path | str) -> None:
        self.split_folder = str(split_folder)
        self._maps: OrderedDict[str, mmap.mmap] = OrderedDict()

    def read(self, shard: str, offset: int, size: int, xxh3: int) -> bytes:
        """The bytes of one image, by its row of the manifest. ``shard`` is a name in the split's folder, or a URL.

        Raises UserError if the shard is missing, or if the bytes are not those that were ingested.
        """
        location = shard if "://" in shard else f"{self.split_folder}/{shard}"
        data = (
            self._read_url(location, offset, size) if "://" in location else self._map(location)[offset : offset + size]
        )
        if len(data) != size:
            raise UserError(f"{location}: shorter than its manifest says; {MEND}")
        if content_hash(data) != xxh3:
            raise UserError(f"{location}: the image at byte {offset} is not the one that was ingested; {MEND}")
        return data

    def read_row(self, row: Mapping[str, Any]) -> bytes:
        """``read``, by a row of the manifest."""
        return self.read(row["shard"], row["offset"], row["size"], row["xxh3"])

    def close(self) -> None:
        """Close every open shard."""
        while self._maps:
            self._maps.popitem()[1].close()

    def __enter__(self) -> "ShardReader":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _map(self, location: str) -> mmap.mmap:
        if location in self._maps:
            self._maps.move_to_end(location)
            return self._maps[location]
        try:
            with open(location, "rb") as file:
                opened = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except (FileNotFoundError, ValueError):
            raise UserError(f"{location}: shard is missing or empty; {MEND}") from None
        self._maps[location] = opened
        if len(self._maps) > OPEN_SHARDS:
            self._maps.popitem(last=False)[1].close()
        return opened

    @staticmethod
    def _read_url(location: str, offset: int, size: int) -> bytes:
        import fsspec

        filesystem, path = fsspec.core.url_to_fs(location)
        return bytes(filesystem.cat_file(path, start=offset, end=offset + size))


def read_rows(split_folder: Path, rows: "pl.DataFrame") -> Iterator[tuple[int, bytes]]:
    """(key, bytes) of each manifest row."""
    with ShardReader(split_folder) as reader:
        for row in rows.iter_rows(named=True):
            yield row["key"], reader.read_row(row)
