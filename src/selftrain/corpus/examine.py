"""Looking at every image of a source, on all cores: its bytes, whether the split has it already, and its facts."""

import itertools
import multiprocessing
import sys
import time
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from hashlib import sha256
from typing import NamedTuple, Protocol

import xxhash

from selftrain.corpus.inspect import ImageFacts, image_facts
from selftrain.corpus.source_image import SourceImage
from selftrain.images.decode import BrokenImage
from selftrain.plumbing.errors import UserError
from selftrain.plumbing.hardware import usable_cores
from selftrain.plumbing.process_engine import submitted
from selftrain.plumbing.processes import worker

ALONE = 0.1
"""Seconds that one process tries it alone: starting others takes as long."""
SMALLEST_CHUNK, LARGEST_CHUNK = 8, 128
"""Images that a process is given at a time: as many as it looks at in a quarter of ``ALONE``, within these."""
AHEAD = 3
"""Chunks a process that are given out or waiting to be taken."""
MOST_PROCESSES = 32


class Known(Protocol):
    """Whether the split holds an image already, by its fingerprint."""

    def __contains__(self, print_: int) -> bool: ...


class Examined(NamedTuple):
    """What was found out of one image: ``facts`` if it is new, ``problem`` if it cannot be used."""

    print_: int = 0
    data: bytes = b""
    """The file's bytes, where somebody needs them."""
    facts: ImageFacts | None = None
    problem: str | None = None
    unreadable: bool = False
    """Whether the problem is the disk's or the network's, and may pass."""


@dataclass(frozen=True)
class Examiner:
    """What is known before the first image is looked at."""

    known: Known
    lost: set[int]
    """Known images whose bytes are needed again."""
    max_pixels: int

    def examine(self, image: SourceImage) -> Examined:
        """Read one image; decode it if it is new."""
        if image.problem:
            return Examined(problem=image.problem)
        try:
            data = image.read()
            print_ = fingerprint(image.source, image.class_name, sha256(data).digest())
            if print_ in self.known:
                return Examined(print_, data if print_ in self.lost else b"")
            return Examined(print_, data, image_facts(data, self.max_pixels))
        except BrokenImage as error:
            return Examined(problem=str(error))
        except OSError as error:
            # A link to nothing is not there; what else fails may pass.
            passing = not isinstance(error, FileNotFoundError)
            return Examined(problem=f"cannot be read: {error.strerror or error}", unreadable=passing)


def fingerprint(source: str, class_name: str | None, digest: bytes) -> int:
    """64 bits that change when an image's place, class or content does."""
    return xxhash.xxh3_64_intdigest(f"{source}\0{class_name or ''}\0".encode() + digest)


def examined(images: Iterable[SourceImage], examiner: Examiner) -> Iterator[tuple[SourceImage, Examined]]:
    """Every image with what was found, in order. Processes never run far ahead of who takes the results."""
    processes = min(usable_cores(), MOST_PROCESSES)
    given, until = iter(images), time.monotonic() + ALONE
    for number, image in enumerate(given, start=1):
        yield image, examiner.examine(image)
        if processes > 1 and time.monotonic() > until:
            chunk = min(max(number // 4, SMALLEST_CHUNK), LARGEST_CHUNK)
            yield from _on_all_cores(given, examiner, processes, chunk)


def _on_all_cores(
    images: Iterator[SourceImage], examiner: Examiner, processes: int, size: int
) -> Iterator[tuple[SourceImage, Examined]]:
    # Forked processes share what is known; elsewhere they get a copy.
    context = multiprocessing.get_context("fork" if sys.platform.startswith("linux") else "spawn")
    pending: deque[tuple[list[SourceImage], Future[list[Examined]]]] = deque()
    with ProcessPoolExecutor(processes, context, _begin, (examiner,)) as executor:
        while chunk := list(itertools.islice(images, size)):
            pending.append((chunk, submitted(executor, _examine_chunk, chunk)))
            if len(pending) >= processes * AHEAD:
                yield from _first(pending)
        while pending:
            yield from _first(pending)


def _first(
    pending: deque[tuple[list[SourceImage], Future[list[Examined]]]],
) -> Iterator[tuple[SourceImage, Examined]]:
    chunk, future = pending.popleft()
    try:
        found = future.result()
    except BrokenProcessPool:
        raise UserError(
            f"a process that decodes images died between {chunk[0].source} and {chunk[-1].source}; memory may be "
            "short: close other programs or set `ingest.max_pixels` lower, and run it again"
        ) from None
    yield from zip(chunk, found, strict=True)


_examiner: Examiner | None = None
"""Of a worker process."""


def _begin(examiner: Examiner) -> None:
    global _examiner
    worker()
    _examiner = examiner


def _examine_chunk(images: list[SourceImage]) -> list[Examined]:
    assert _examiner is not None
    return [_examiner.examine(image) for image in images]
