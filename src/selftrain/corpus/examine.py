"""Looking at every image of a source, wherever there are cores: its bytes, whether the split has it, its facts."""

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from itertools import islice
from typing import NamedTuple, Protocol

import xxhash

from selftrain.corpus.inspect import ImageFacts, image_facts
from selftrain.corpus.source_image import SourceImage
from selftrain.images.decode import BrokenImage
from selftrain.plumbing.engine import Engine

ALONE = 0.1
"""Seconds that one process tries it alone: starting others takes as long."""
SMALLEST_CHUNK, LARGEST_CHUNK = 8, 128
"""Images that a process is given at a time: as many as it looks at in a quarter of ``ALONE``, within these."""


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
    missing: bool = False
    """Whether there is no such file: a link to nothing, or a machine that does not see the folder."""


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
            missing = isinstance(error, FileNotFoundError)
            problem = f"cannot be read: {error.strerror or error}"
            return Examined(problem=problem, unreadable=not missing, missing=missing)


def fingerprint(source: str, class_name: str | None, digest: bytes) -> int:
    """64 bits that change when an image's place, class or content does."""
    return xxhash.xxh3_64_intdigest(f"{source}\0{class_name or ''}\0".encode() + digest)


def examined(
    images: Iterable[SourceImage], examiner: Examiner, engine: Engine
) -> Iterator[tuple[SourceImage, Examined]]:
    """Every image with what was found, in order; the first ones by this process."""
    given, until = iter(images), time.monotonic() + ALONE
    for number, image in enumerate(given, start=1):
        yield image, examiner.examine(image)
        if not engine.shares_memory and time.monotonic() > until:
            size = min(max(number // 4, SMALLEST_CHUNK), LARGEST_CHUNK)
            # Forked processes share what is known; others get a copy, once.
            work = partial(_chunk_examiner, examiner)
            for chunk, found in engine.in_order(work, _chunks(given, size), _range, "set `ingest.max_pixels` lower"):
                for each, seen in zip(chunk, found, strict=True):
                    # This process has seen the file's name.
                    yield each, examiner.examine(each) if seen.missing else seen


def _chunks(images: Iterator[SourceImage], size: int) -> Iterator[list[SourceImage]]:
    while chunk := list(islice(images, size)):
        yield chunk


def _range(chunk: list[SourceImage]) -> str:
    return f"images from {chunk[0].source} to {chunk[-1].source}"


def _chunk_examiner(examiner: Examiner) -> Callable[[list[SourceImage]], list[Examined]]:
    return lambda images: [examiner.examine(image) for image in images]
