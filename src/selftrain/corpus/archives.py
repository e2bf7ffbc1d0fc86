"""Images in WebDataset shards, local or behind a URL, compressed or not, read to their end."""

import lzma
import math
import re
import tarfile
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import BinaryIO
from urllib.parse import urlsplit

from selftrain.corpus.source_image import SourceImage, as_text, count_other, too_large
from selftrain.images.decode import SUFFIXES
from selftrain.params.ingest import COMPRESSIONS
from selftrain.plumbing.errors import UserError
from selftrain.plumbing.secrets import masked
from selftrain.plumbing.stores import GONE, is_url, matching, status_of, stream

OTHER_MEMBERS = ("cls", "json")
"""What WebDataset samples hold beside their image."""
SCHEMES = (
    "file", "http", "https", "s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "hf", "hdfs", "sftp", "oss", "memory",
    "simplecache", "filecache", "blockcache",
)  # fmt: skip
"""Of fsspec's, those that read bytes from a store."""
MOST_SHARDS = 10**6
"""That one pattern of braces may name."""
RANGE = re.compile(r"\{(-?\d{1,30})\.\.(-?\d{1,30})(?:\.\.-?\d+)?\}")
READ_AHEAD = 2**20
LINK, TWICE, HIDDEN = "link to nowhere", "named twice", "hidden"
"""Under these names members that are not images are counted."""


def from_shards(
    root: Path, pattern: str, ignored: Counter[str], *, labeled: bool, classes: list[str] | None
) -> Iterator[SourceImage]:
    """The images of the shards that a path with braces names.

    Raises UserError for shards that are missing or damaged: a compressed one may be found so at its end alone.
    """
    for url in shards_of(pattern):
        yield from images_of_shard(root, url, ignored, labeled=labeled, classes=classes)


def images_of_shard(
    root: Path, url: str, ignored: Counter[str], *, labeled: bool, classes: list[str] | None
) -> Iterator[SourceImage]:
    """The images of one shard. Raises UserError if it is missing or damaged."""
    location = location_of(root, url)
    try:
        with _uncompressed(location) as file:
            yield from _from_tar(masked(url), file, ignored, labeled=labeled, classes=classes)
    except UserError:
        raise
    except FileNotFoundError as error:
        if (status := status_of(error)) not in (None, *GONE):
            what = f"its server answers {status}; run it again when it gives the file"
            raise UserError(f"{masked(location)}: {what}") from None
        raise UserError(f"{masked(location)}: no such shard; check the paths under `ingest` in params.yaml") from None
    except _damage() as error:
        raise UserError(f"{masked(location)}: damaged shard ({masked(str(error))}); fetch it again") from None


def location_of(root: Path, url: str) -> str:
    """The URL or the path to open; a path is relative to ``root``."""
    return url if is_url(url) else str(root / url)


def compression_of(url: str) -> str | None:
    """What a shard is compressed with, by its name; None if it is not."""
    from fsspec.utils import infer_compression

    path = urlsplit(url).path if is_url(url) else url
    return COMPRESSIONS.get(Path(path).suffix) or infer_compression(path)


def _uncompressed(location: str) -> BinaryIO:
    import fsspec

    compression = compression_of(location)
    # Servers of web pages may give whole files only; fsspec reads those too.
    if not is_url(location) or location.startswith(("http://", "https://")):
        return fsspec.open(location, "rb", compression=compression).open()  # type: ignore[no-any-return]
    file = stream(location)
    return file if compression is None else fsspec.compression.compr[compression](file, mode="rb")


def shards_of(pattern: str) -> list[str]:
    """The shards that a pattern names: braces, and in URLs also ``*``. Raises UserError if there are none."""
    urls = _expanded(pattern)
    for url in urls:
        _check_scheme(url)
    found = [each for url in urls for each in (matching(url) if is_url(url) and "*" in url else [url])]
    if not found:
        raise UserError(f"{masked(pattern)}: names no shard; check the paths under `ingest` in params.yaml")
    return found


def _check_scheme(url: str) -> None:
    """Raises UserError for an address that is neither a store of files nor a cache of one."""
    for part in url.split("::") if is_url(url) else ():
        scheme = part.partition("://")[0]
        if scheme not in SCHEMES:
            raise UserError(f"{masked(url)}: '{scheme}' is not read; take one of {', '.join(SCHEMES)}")


def _expanded(pattern: str) -> list[str]:
    import braceexpand

    # braceexpand holds a whole range in memory before it gives the first name.
    ranges = [abs(int(end) - int(start)) + 1 for start, end in RANGE.findall(pattern)]
    if math.prod(ranges) > MOST_SHARDS:
        raise UserError(f"{pattern}: its braces name {math.prod(ranges):,} shards, more than {MOST_SHARDS:,}")
    try:
        return list(braceexpand.braceexpand(pattern))
    except ValueError:
        raise UserError(f"{pattern}: its braces do not match; write, for example, {{000..099}}") from None


def _damage() -> tuple[type[Exception], ...]:
    """What libraries raise for damaged archives."""
    known: list[type[Exception]] = [tarfile.TarError, EOFError, zlib.error, lzma.LZMAError, OSError, ValueError]
    try:
        from zstandard import ZstdError  # type: ignore[import-not-found]
    except ImportError:
        return tuple(known)
    return (*known, ZstdError)


def _from_tar(
    url: str, file: BinaryIO, ignored: Counter[str], *, labeled: bool, classes: list[str] | None
) -> Iterator[SourceImage]:
    with tarfile.open(fileobj=file, mode="r:") as tar:
        sample: dict[str, _Member] = {}
        stem = ""
        for member in tar:
            if member.isdir():
                continue
            base = member.name.rpartition("/")[2]
            # macOS writes one beside each file, and it would come between an image and its class.
            if base.startswith("."):
                ignored[HIDDEN] += 1
                continue
            member_stem, suffix = _split_at_first_dot(member.name)
            if member_stem != stem and sample:
                yield from _sample_images(url, stem, sample, labeled, classes, ignored)
                sample = {}
            stem = member_stem
            content = _content(tar, member)
            if content is None:
                ignored[LINK if member.islnk() or member.issym() else "not a file"] += 1
            elif suffix in sample:
                ignored[TWICE] += 1
            else:
                sample[suffix] = _Member(
                    content, member.offset_data if member.isreg() and not member.issparse() else None
                )
        if sample:
            yield from _sample_images(url, stem, sample, labeled, classes, ignored)
        # tarfile takes a missing end for the end; a whole tar has a block of zeros there.
        tar.fileobj.seek(tar.offset)
        if tar.fileobj.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
            raise tarfile.ReadError("cut short: its end mark is missing")
        # Compressed archives compare their checksums when they are read to their end.
        while rest := tar.fileobj.read(READ_AHEAD):
            if rest.strip(b"\0"):
                raise tarfile.ReadError("something follows its end mark; take tars that were put together apart")


@dataclass(frozen=True)
class _Member:
    content: bytes | str
    """Its bytes, or what is wrong with it."""
    offset: int | None
    """Where its bytes begin in the tar; None for links and for files with holes."""


def _content(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes | str | None:
    """A member's bytes, those of what it links to; what is wrong with it; or None if it leads to no file."""
    try:
        file = tar.extractfile(member)
    except KeyError:
        return None
    if file is None:
        return None
    if problem := too_large(member.size):
        return problem
    data = file.read()
    if not (member.islnk() or member.issym()) and len(data) != member.size:
        raise tarfile.ReadError(f"{as_text(member.name)} is cut short")
    return data


def _split_at_first_dot(name: str) -> tuple[str, str]:
    """WebDataset's grouping: a sample's members share the path up to the first dot of the file name."""
    folder, _, base = name.rpartition("/")
    stem, _, suffix = base.partition(".")
    return (f"{folder}/{stem}" if folder else stem), suffix.lower()


def _sample_images(
    url: str, stem: str, sample: dict[str, _Member], labeled: bool, classes: list[str] | None, ignored: Counter[str]
) -> Iterator[SourceImage]:
    """The sample's image; all of them if none has a plain suffix (``cat.0.png``, ``cat.1.png``)."""
    images = [suffix for suffix in sample if f".{suffix.rpartition('.')[2]}" in SUFFIXES]
    plain = [suffix for suffix in images if "." not in suffix]
    for suffix in sample:
        if suffix not in (plain or images) and suffix not in OTHER_MEMBERS:
            count_other(ignored, f".{suffix}")
    for suffix in plain or images:
        content = sample[suffix].content
        class_name, problem = _class_of_sample(sample, classes) if labeled else (None, None)
        problem = content if isinstance(content, str) else problem
        data = b"" if isinstance(content, str) else content
        yield SourceImage(
            as_text(f"{url}::{stem}.{suffix}"), class_name, partial(bytes, data), problem, sample[suffix].offset
        )


def _class_of_sample(sample: dict[str, _Member], classes: list[str] | None) -> tuple[str | None, str | None]:
    written = sample["cls"].content if "cls" in sample else None
    if not isinstance(written, bytes):
        return None, "has no .cls member, so it has no class"
    text = written.decode("utf-8", "replace").strip()
    if not (text.isascii() and text.isdigit()):
        return None, f"its .cls member is {text[:40]!r}, not a class index"
    if classes is None:
        raise UserError("params.yaml: ingest.classes: missing; name the classes that the shards' .cls indices mean")
    if int(text) >= len(classes):
        return None, f"its .cls member is {text}, and `ingest.classes` names {len(classes)} classes"
    return classes[int(text)], None
