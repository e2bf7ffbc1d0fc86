"""Decoded pixels, kept between readings: one file a shard under ``.selftrain/pixels``.

Every image has its own place in its shard's file. Before its pixels stands a seal, a hash of them that is seeded with
the hash of the image's bytes. Only pixels with their seal are believed. So a killed writer, a damaged disk or another
image under the same key cost a decoding, and never a wrong pixel.
"""

import contextlib
import hashlib
import math
import os
import shutil
import time
from collections import OrderedDict
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from io import FileIO
from pathlib import Path

import numpy as np
import xxhash

from selftrain.code import modules_digest
from selftrain.images.decode import Pixels
from selftrain.images.pixel_layouts import SEAL, Layout
from selftrain.plumbing.hardware import PIXELS
from selftrain.tables.keys import shard_of, split_of

FOLDER = PIXELS
OPEN_FILES = 64
FORGOTTEN = 24 * 3600.0
"""Seconds after which a folder that was emptied is removed."""
MADE_BY = ("images.decode", "images.transforms", "images.pixel_layouts")
LIBRARIES = ("pillow", "pillow-heif", "simplejpeg", "torch")
"""What pixels depend on, beside the image's bytes."""


def cache_folder(corpus: Path, what: str) -> Path:
    """Where a corpus' pixels lie; ``what`` names the size and the crop."""
    made_of = f"{corpus.resolve()} {modules_digest(MADE_BY)} {[_version(library) for library in LIBRARIES]}"
    return FOLDER / f"{hashlib.sha256(made_of.encode()).hexdigest()[:16]}-{what}"


def _version(library: str) -> str:
    """Empty for one of an extra that is not installed."""
    try:
        return version(library)
    except PackageNotFoundError:
        return ""


def make_room(folder: Path, needed: int, limit: int) -> bool:
    """Whether ``needed`` bytes may be kept in a folder; what lies in others that were used longest ago goes for it."""
    if needed > limit:
        return False
    try:
        folder.mkdir(parents=True, exist_ok=True)
        os.utime(folder)
        others = sorted((other.stat().st_mtime, other) for other in FOLDER.glob("*") if other != folder)
        sizes = [sum(file.stat().st_blocks * 512 for file in other.rglob("*.u8")) for _, other in others]
    except OSError as error:  # another process removes folders just now, or the place may not be written
        print(f"{folder}: {error.strerror}; images are decoded each time")
        return False
    for place, (used, other) in enumerate(others):
        if needed + sum(sizes[place:]) > limit:
            _empty(other, used)
    return True


def _empty(folder: Path, used: float) -> None:
    """Cut a folder's files to nothing, and remove it if nobody has used it for a day.

    A file that is removed would go on taking room as long as a process has it open.
    """
    for file in folder.rglob("*.u8"):
        with contextlib.suppress(OSError):
            os.truncate(file, 0)
    if time.time() - used > FORGOTTEN:
        shutil.rmtree(folder, ignore_errors=True)


class PixelCache:
    """Pixels by key. Several processes may share a folder: they write the same bytes."""

    def __init__(self, folder: Path, layout: Layout) -> None:
        self.folder, self.layout = folder, layout
        self._refused = False
        self._files: OrderedDict[tuple[str, int], FileIO] = OrderedDict()

    def pixels(self, key: int, content: int, make: Callable[[], Pixels]) -> Pixels:
        """An image's pixels; what is missing is made and kept. ``content`` is the image's ``xxh3``."""
        if self._refused:
            return make()
        try:
            found = self._found(key, content)
        except OSError as error:
            return self._refuse(error, make())
        if found is not None:
            return found
        made = make()
        start, shape = self.layout(key)
        assert made.shape == shape
        flat = np.ascontiguousarray(made).reshape(-1)
        try:
            os.pwritev(self._file(split_of(key), shard_of(key)), [_seal(flat, content), flat.data], start)
        except OSError as error:
            return self._refuse(error, made)
        return made

    def holds(self, key: int, content: int) -> bool:
        """Whether an image's pixels are kept."""
        try:
            return not self._refused and self._found(key, content) is not None
        except OSError:
            return False

    def _found(self, key: int, content: int) -> Pixels | None:
        start, shape = self.layout(key)
        found = np.empty(SEAL + math.prod(shape), np.uint8)
        whole = os.preadv(self._file(split_of(key), shard_of(key)), [found.data], start) == len(found)
        if whole and found[:SEAL].tobytes() == _seal(found[SEAL:], content):
            return found[SEAL:].reshape(shape)
        return None

    def _refuse(self, error: OSError, made: Pixels) -> Pixels:
        self._refused = True
        print(f"{self.folder}: {error.strerror}; images are decoded each time from here on")
        return made

    def _file(self, split: str, shard: int) -> int:
        key = (split, shard)
        if key in self._files:
            self._files.move_to_end(key)
            return self._files[key].fileno()
        path = self.folder / split / f"{shard:08d}.u8"
        path.parent.mkdir(parents=True, exist_ok=True)
        # Not for appending: there the system writes everything to the end.
        self._files[key] = FileIO(os.open(path, os.O_RDWR | os.O_CREAT, 0o666), "r+")
        if len(self._files) > OPEN_FILES:
            self._files.popitem(last=False)[1].close()
        return self._files[key].fileno()


def _seal(pixels: Pixels, content: int) -> bytes:
    return xxhash.xxh3_64_digest(pixels.data, seed=content & (2**64 - 1))
