"""Random access to images: (shard, offset, size) → bytes, wherever the shard lies."""

import mmap
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from selftrain.plumbing.errors import UserError

if TYPE_CHECKING:
    import polars as pl

OPEN_SHARDS = 256


class ShardReader:
    """Reads image bytes from a split's shards: local files through mmap, URLs through range requests.

    Safe to use from forked loader workers as long as each makes its own reader or the parent never read.
    """

    def __init__(self, split_folder: Path | str) -> None:
        self.split_folder = str(split_folder)
        self._maps: OrderedDict[str, mmap.mmap] = OrderedDict()

    def read(self, shard: str, offset: int, size: int) -> bytes:
        """The bytes of one image. ``shard`` is as the manifest has it: a name in the split's folder, or a URL."""
        location = shard if "://" in shard else f"{self.split_folder}/{shard}"
        data = (
            self._read_url(location, offset, size) if "://" in location else self._map(location)[offset : offset + size]
        )
        if len(data) != size:
            raise UserError(f"{location}: shorter than its manifest says; restore it with `dvc checkout`")
        return data

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
            raise UserError(f"{location}: shard is missing or empty; restore it with `dvc checkout`") from None
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
            yield row["key"], reader.read(row["shard"], row["offset"], row["size"])
