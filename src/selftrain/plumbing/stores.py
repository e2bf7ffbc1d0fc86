"""Files in stores (S3, GCS, HTTP, … whatever fsspec reads): what is there, and ranges of its bytes, tried again."""

import io
import re
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from selftrain.plumbing.errors import UserError
from selftrain.plumbing.secrets import masked

Result = TypeVar("Result")

ATTEMPTS = 7
FIRST_PAUSE = 0.25
"""Seconds before the second attempt; each pause after it is twice as long: 16 s in all."""
NEAR = 2**18
"""Bytes between two ranges that are fetched along rather than asked for apart."""
LARGEST = 2**23
"""Bytes asked for at once: larger ranges are cut, and fetched side by side."""
TAGS = (
    "ETag", "etag", "md5Hash", "generation", "content_md5", "Content-MD5", "Digest", "blob_id", "mtime", "LastModified",
    "last_modified", "Last-Modified", "updated",
)  # fmt: skip
"""Under which stores tell what changes when a file does."""


@dataclass(frozen=True)
class Version:
    """What tells one content of a file from the next."""

    size: int
    tag: str
    """The store's ETag or the like, or the time of the last change; empty if the store tells neither."""


GONE, NOT_ALLOWED = (404, 410), (401, 403)
"""Answers of web servers."""


def is_url(path: str) -> bool:
    """Whether a path is behind a URL, not in the file system."""
    return "://" in path


def version_of(location: str) -> Version:
    """A file's version, of a URL or a path. Raises UserError if there is no such file."""
    if not is_url(location):
        try:
            status = Path(location).stat()
        except FileNotFoundError:
            raise UserError(f"{location}: no such file") from None
        return Version(status.st_size, f"mtime {status.st_mtime_ns}")
    store, path = _opened(location)
    found = _tried(location, lambda: store.info(path))
    if found.get("size") is None:
        raise UserError(f"{masked(location)}: its store does not tell how large it is, so it cannot be read in ranges")
    tag = next((f"{name} {found[name]}" for name in TAGS if found.get(name)), "")
    return Version(int(found["size"]), tag)


def matching(pattern: str) -> list[str]:
    """The URLs that a pattern with ``*`` names, sorted."""
    store, path = _opened(pattern)
    found = _tried(pattern, lambda: store.glob(path))
    return [store.unstrip_protocol(each) for each in sorted(found)]


def fetch(url: str, ranges: Sequence[tuple[int, int]]) -> list[tuple[int, bytes]]:
    """The bytes of ``(start, end)`` ranges, as ``(start, bytes)`` of fewer ranges that cover them, in order.

    Near ranges are fetched as one, long ones in pieces side by side. What fails is asked for again, with longer and
    longer pauses. Raises UserError if the store does not answer, or if the file is shorter.
    """
    from fsspec.utils import merge_offset_ranges

    if not ranges:
        return []
    starts, ends = zip(*sorted(ranges), strict=True)
    _, starts, ends = merge_offset_ranges([url] * len(starts), list(starts), list(ends), NEAR, LARGEST)
    pieces = [
        (start, min(start + LARGEST, end))
        for first, end in zip(starts, ends, strict=True)
        for start in range(first, end, LARGEST)
    ]
    found: dict[int, bytes] = {}

    def missing_ones() -> None:
        store, path = _opened(url)
        missing = [piece for piece in pieces if piece[0] not in found]
        paths, firsts, lasts = [path] * len(missing), [each[0] for each in missing], [each[1] for each in missing]
        problem: Exception | None = None
        for (start, end), data in zip(missing, store.cat_ranges(paths, firsts, lasts, on_error="return"), strict=True):
            if isinstance(data, Exception):
                problem = data
            elif len(data) > end - start:
                raise UserError(f"{masked(url)}: its server gives no ranges, only whole files; copy it instead")
            elif len(data) != end - start:
                problem = EOFError(f"{end - start - len(data)} bytes are missing")
            else:
                found[start] = bytes(data)
        if problem is not None:
            raise problem

    _tried(url, missing_ones)
    return [(start, found[start]) for start, _ in pieces]


def stream(url: str) -> io.BufferedReader:
    """A file to be read from its beginning to its end; the next bytes are fetched meanwhile."""
    return io.BufferedReader(_Stream(url), buffer_size=2**16)


class _Stream(io.RawIOBase):
    def __init__(self, url: str) -> None:
        self.url, self.size, self._place = url, version_of(url).size, 0
        self._ahead = ThreadPoolExecutor(1)
        self._blocks: dict[int, Future[bytes]] = {}

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._place

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._place = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._place, io.SEEK_END: self.size}[whence]
        return self._place

    def readinto(self, buffer: Any) -> int:
        block = self._place // LARGEST
        wanted = {each for each in (block, block + 1) if each * LARGEST < self.size}
        self._blocks = {each: future for each, future in self._blocks.items() if each in wanted}
        for each in sorted(wanted - self._blocks.keys()):
            self._blocks[each] = self._ahead.submit(self._block, each)
        if block not in self._blocks:
            return 0
        start = self._place - block * LARGEST
        data = self._blocks[block].result()[start : start + len(buffer)]
        buffer[: len(data)] = data
        self._place += len(data)
        return len(data)

    def _block(self, block: int) -> bytes:
        start, end = block * LARGEST, min((block + 1) * LARGEST, self.size)
        return b"".join(data for _, data in fetch(self.url, [(start, end)]))

    def close(self) -> None:
        self._ahead.shutdown(wait=False, cancel_futures=True)
        super().close()


def _opened(url: str) -> tuple[Any, str]:
    import fsspec

    # What a store listed before may have changed.
    try:
        return fsspec.core.url_to_fs(url, use_listings_cache=False)  # type: ignore[no-any-return]
    except ImportError as error:
        raise UserError(f"{masked(url)}: {error}; install it beside selftrain") from None
    except ValueError as error:
        raise UserError(f"{masked(url)}: {masked(str(error))}") from None


def _tried(url: str, ask: Callable[[], Result]) -> Result:
    """The answer of a store; asked again while it fails in a way that may pass."""
    for attempt in range(ATTEMPTS):
        try:
            return ask()
        except (FileNotFoundError, PermissionError) as error:
            status = status_of(error)
            if isinstance(error, PermissionError) or status in NOT_ALLOWED:
                words = _words(error if status is None else error.__cause__)
                raise UserError(f"{masked(url)}: its store does not allow it ({words}); check the keys") from None
            if status is None or status in GONE:
                raise UserError(f"{masked(url)}: no such file in its store") from None
            problem = error.__cause__
        except _passing() as error:
            problem = error
        if attempt < ATTEMPTS - 1:
            time.sleep(FIRST_PAUSE * 2**attempt)
    raise UserError(
        f"{masked(url)}: its store did not answer {ATTEMPTS} times ({_words(problem)}); run it again when it does, "
        "what is done stays"
    )


def status_of(error: Exception) -> int | None:
    """The answer of a web server behind an error: fsspec calls whatever fails there a missing file."""
    return getattr(error.__cause__, "status", None)


def _words(error: BaseException | None) -> str:
    text = re.sub(r"\s+", " ", masked(str(error))).strip()
    return text[:200] or type(error).__name__


def _passing() -> tuple[type[Exception], ...]:
    """What clients of stores raise for what may pass; their packages are loaded if one was used."""
    kinds: list[type[Exception]] = [OSError, EOFError, TimeoutError]
    if "aiohttp" in sys.modules:
        kinds.append(sys.modules["aiohttp"].ClientError)
    if "botocore.exceptions" in sys.modules:
        found = sys.modules["botocore.exceptions"]
        kinds += [found.BotoCoreError, found.ClientError]
    return tuple(kinds)
