"""Random access to images: (shard, offset, size) → bytes, wherever the shard lies."""

import mmap
import os
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from selftrain.images.content import is_whole
from selftrain.images.remote_shard import LOOK_AGAIN, RemoteShard, Wanted, check_version
from selftrain.plumbing.errors import UserError
from selftrain.plumbing.hardware import SHARD_BYTES
from selftrain.plumbing.stores import is_url
from selftrain.tables.pointers import read_pointer

if TYPE_CHECKING:
    import polars as pl
    import pyarrow as pa

OPEN_SHARDS = 256
READ_TOGETHER = 64
"""Images that are asked for together where they are read one by one."""
DEEP_COLUMNS = ["key", "shard", "offset", "size", "xxh3"]
"""Of a manifest; what ``damaged`` reads."""
MEND = "`selftrain ingest` writes it anew from its source, `dvc checkout` restores it"


class ShardReader:
    """Reads image bytes from a split's shards: its own and those on a disk through mmap, those in a store in ranges.

    Safe to use from forked loader workers as long as each makes its own reader or the parent never read.
    ``shard_bytes``: how much of stores' shards may be kept here.
    """

    def __init__(self, split_folder: Path | str, shard_bytes: int = SHARD_BYTES) -> None:
        self.split_folder, self.shard_bytes = str(split_folder), shard_bytes
        self._opened: OrderedDict[str, _MappedShard | _OthersShard | RemoteShard] = OrderedDict()

    def read(self, shard: str, offset: int, size: int, xxh3: int) -> bytes:
        """The bytes of one image, by its row of the manifest. ``shard`` is a name in the split's folder.

        Raises UserError if the shard is missing or has changed, or if the bytes are not those that were ingested.
        """
        opened = self._open(shard)
        data = opened.read((offset, size, xxh3))
        if len(data) != size:
            raise UserError(f"{opened.name}: shorter than its manifest says; {opened.mend}")
        if not is_whole(data, xxh3):
            raise UserError(
                f"{opened.name}: the image at byte {offset} is not the one that was ingested; {opened.mend}"
            )
        return data

    def read_row(self, row: Mapping[str, Any]) -> bytes:
        """``read``, by a row of the manifest."""
        return self.read(row["shard"], row["offset"], row["size"], row["xxh3"])

    def damaged(self, manifest: "pa.Table") -> Iterator[str]:
        """Read every image of a manifest; yields a line about each that is not what was ingested."""
        columns = (manifest[name].to_pylist() for name in DEEP_COLUMNS)
        for key, *where in zip(*columns, strict=True):
            try:
                self.read(*where)
            except UserError as error:
                yield f"image {key}: {error}"

    def ahead(self, wanted: Iterable[tuple[str, int, int, int]]) -> None:
        """Begin to fetch images that will be read soon, by shard, offset, size and hash, if they lie in a store."""
        by_shard: dict[str, list[tuple[int, int, int]]] = {}
        for shard, *where in wanted:
            by_shard.setdefault(shard, []).append((where[0], where[1], where[2]))
        for shard, of_shard in by_shard.items():
            opened = self._open(shard)
            if isinstance(opened, RemoteShard):
                opened.ahead(of_shard)

    def close(self) -> None:
        """Close every open shard."""
        while self._opened:
            self._opened.popitem()[1].close()

    def __enter__(self) -> "ShardReader":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _open(self, shard: str) -> "_MappedShard | _OthersShard | RemoteShard":
        if shard in self._opened:
            self._opened.move_to_end(shard)
            return self._opened[shard]
        path = f"{self.split_folder}/{shard}"
        pointer = None if os.path.exists(path) else read_pointer(self.split_folder, shard)
        if pointer is None:
            self._opened[shard] = _MappedShard(path, MEND)
        else:
            location = pointer.opened_from(os.path.dirname(path))
            if is_url(location):
                self._opened[shard] = RemoteShard(location, pointer.version, self.shard_bytes)
            else:
                check_version(location, pointer.version)
                self._opened[shard] = _OthersShard(location)
        if len(self._opened) > OPEN_SHARDS:
            self._opened.popitem(last=False)[1].close()
        return self._opened[shard]


class _MappedShard:
    """A shard on this machine."""

    def __init__(self, path: str, mend: str) -> None:
        self.name, self.mend = path, mend
        try:
            with open(path, "rb") as file:
                self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except (FileNotFoundError, ValueError):
            raise UserError(f"{path}: shard is missing or empty; {mend}") from None

    def read(self, wanted: Wanted) -> bytes:
        offset, size, _ = wanted
        return self._map[offset : offset + size]

    def close(self) -> None:
        self._map.close()


class _OthersShard:
    """A shard in place on this machine, which others may write to: a mapped file that is cut kills its readers."""

    mend = LOOK_AGAIN

    def __init__(self, path: str) -> None:
        self.name = path
        try:
            self._file = os.open(path, os.O_RDONLY)
        except FileNotFoundError:
            raise UserError(f"{path}: shard is missing; {self.mend}") from None

    def read(self, wanted: Wanted) -> bytes:
        offset, size, _ = wanted
        return os.pread(self._file, size, offset)

    def close(self) -> None:
        os.close(self._file)


def read_rows(split_folder: Path, rows: "pl.DataFrame") -> Iterator[tuple[int, bytes]]:
    """(key, bytes) of each manifest row."""
    with ShardReader(split_folder) as reader:
        for some in rows.iter_slices(READ_TOGETHER):
            reader.ahead(some.select("shard", "offset", "size", "xxh3").iter_rows())
            for row in some.iter_rows(named=True):
                yield row["key"], reader.read_row(row)
