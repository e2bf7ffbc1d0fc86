"""A shard in a store, and the bytes of it that are kept here.

They are kept in a file with holes under ``.selftrain/shards``: every image's bytes at the place that they have in the
shard. An image is compared with its hash whenever it is read, so that a hole, a half-written range or a damaged disk is
a range to fetch and never a wrong image. Processes may share the file, since they write the same bytes.
"""

import contextlib
import os
import time
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import ClassVar

import xxhash

from selftrain.images.content import is_whole
from selftrain.plumbing.errors import UserError
from selftrain.plumbing.locks import WORK
from selftrain.plumbing.room import writing
from selftrain.plumbing.secrets import masked
from selftrain.plumbing.stores import Version, fetch, version_of

KEPT = WORK / "shards"
CHECKED_EVERY = 2**26
"""Bytes that a process keeps, of all shards, before it looks whether the folder has become too large; an eighth of what
is allowed, if that is less."""
FORGOTTEN = 86_400
"""Seconds after which an emptied file is removed."""

LOOK_AGAIN = "`selftrain ingest --verify` looks at it again"

Wanted = tuple[int, int, int]
"""Offset and size of an image in its shard, and the hash of its bytes."""


class RemoteShard:
    """One shard. ``limit``: bytes that all shards together may keep here."""

    written: ClassVar[int] = 0
    """Bytes that this process has kept of all shards since it looked last."""

    def __init__(self, url: str, version: Version, limit: int) -> None:
        self.url, self.version, self.limit = url, version, limit
        self.name, self.mend = masked(url), LOOK_AGAIN
        self._same = False
        self._coming: dict[int, Future[None]] = {}
        """What fetches an image that is on its way, by the image's offset."""
        self._threads: ThreadPoolExecutor | None = None
        name = xxhash.xxh3_128_hexdigest(f"{url} {version.size} {version.tag}".encode())
        self.path = KEPT / f"{name}.part"
        with writing(self.path):
            KEPT.mkdir(parents=True, exist_ok=True)
            self._file = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666)
            os.utime(self.path)

    def read(self, wanted: Wanted) -> bytes:
        """An image's bytes, which may be wrong if the store's are. Raises UserError if the shard has changed."""
        offset, size, xxh3 = wanted
        data = os.pread(self._file, size, offset)
        if not is_whole(data, xxh3) and offset in self._coming:
            self._coming[offset].result()
            data = os.pread(self._file, size, offset)
        if not is_whole(data, xxh3):
            # Not read back: another process may make room just now.
            data = b"".join(self._keep([wanted]))
        if not is_whole(data, xxh3):
            check_version(self.url, self.version)
        return data

    def ahead(self, wanted: Iterable[Wanted]) -> None:
        """Begin to fetch images that will be read soon, if they are not here; near ones as one range."""
        self._coming = {offset: future for offset, future in self._coming.items() if not future.done()}
        missing = [
            (offset, size, xxh3)
            for offset, size, xxh3 in wanted
            if offset not in self._coming and not is_whole(os.pread(self._file, size, offset), xxh3)
        ]
        if missing:
            self._threads = self._threads or ThreadPoolExecutor(1)
            future = self._threads.submit(self._bring, missing)
            self._coming |= dict.fromkeys((offset for offset, _, _ in missing), future)

    def close(self) -> None:
        """Forget what is on its way."""
        if self._threads is not None:
            self._threads.shutdown(cancel_futures=True)
        os.close(self._file)

    def _bring(self, wanted: list[Wanted]) -> None:
        # Nothing is returned: a future would hold the bytes as long as it is remembered.
        self._keep(wanted)

    def _keep(self, wanted: list[Wanted]) -> list[bytes]:
        """Fetch images and keep them; the bytes that came, in their order."""
        if not self._same:
            check_version(self.url, self.version)
            self._same = True
        found = fetch(self.url, [(offset, offset + size) for offset, size, _ in wanted])
        for start, data in found:
            with writing(self.path):
                os.pwrite(self._file, data, start)
            RemoteShard.written += len(data)
        if RemoteShard.written > min(CHECKED_EVERY, self.limit // 8):
            RemoteShard.written = 0
            make_room(self.limit, self.path)
        return [data for _, data in found]


def check_version(location: str, version: Version) -> None:
    """Raises UserError if a shard that stays in place is not the one that was ingested."""
    if version_of(location) != version:
        raise UserError(f"{masked(location)}: the shard has changed since it was ingested; {LOOK_AGAIN}")


def make_room(limit: int, but: Path) -> None:
    """Empty the files that were opened longest ago until all take at most ``limit`` bytes, the one in use last.

    They are cut to nothing and not removed: a process that has one open keeps less from then on, not a hidden file.
    """
    found = []
    for path in KEPT.glob("*.part"):
        with contextlib.suppress(FileNotFoundError):
            status = path.stat()
            found.append((status.st_mtime, status.st_blocks * 512, path))
    total = sum(size for _, size, _ in found)
    for opened, size, path in sorted(found, key=lambda each: (each[2] == but, *each)):
        if size == 0 and time.time() - opened > FORGOTTEN:
            path.unlink(missing_ok=True)
        elif total > limit:
            with contextlib.suppress(FileNotFoundError):
                os.truncate(path, 0)
            total -= size
