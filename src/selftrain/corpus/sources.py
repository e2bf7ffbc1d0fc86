"""Where images come from: class folders, flat folders and WebDataset shards, as one stream."""

import errno
import os
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from selftrain.corpus.archives import HIDDEN, from_shards
from selftrain.corpus.source_image import MAX_BYTES, SourceImage, as_text, count_other, too_large
from selftrain.images.decode import SUFFIXES, BrokenImage
from selftrain.params.ingest import is_shards
from selftrain.plumbing.errors import UserError

NOTHING = (errno.ENOENT, errno.ELOOP, errno.ENOTDIR)
"""What a link to nothing, or in a circle, answers."""
NO_CLASSES = ("@eaDir", "__MACOSX", "lost+found", "$RECYCLE.BIN", "System Volume Information")
"""Folders that machines write beside the user's."""


def find_images(
    root: Path, paths: list[str], *, labeled: bool, classes: list[str] | None, ignored: Counter[str]
) -> Iterator[SourceImage]:
    """All images under ``paths``, in a fixed order; ``ignored`` counts the other files, by suffix.

    ``root`` is what relative paths are relative to. With ``labeled``, folders must hold one folder a
    class and shards a ``.cls`` member a sample, an index into ``classes``.

    Raises UserError for paths that do not exist, empty folders and damaged shards.
    """
    for path in paths:
        if is_shards(path) and not (root / path).is_dir():
            yield from from_shards(root, path, ignored, labeled=labeled, classes=classes)
        else:
            yield from _from_folder(root, path, ignored, labeled=labeled)


def check_folders(root: Path, paths: list[str], *, labeled: bool) -> None:
    """Raise what ``find_images`` would raise of folders that are not there or hold no image; shards are not read."""
    for path in paths:
        if is_shards(path) and not (root / path).is_dir():
            continue
        folder = _existing(root, path)
        for place in _class_folders(folder) if labeled else [folder]:
            if next(_image_files(str(place), Counter(), set()), None) is None:
                raise _empty_class(place) if labeled else _empty_folder(place)


def class_folders(root: Path, paths: list[str]) -> list[str]:
    """The sorted names of the class folders under ``paths``; none for shards.

    Raises UserError for a folder without any, and for names that are not valid text.
    """
    names = set()
    for path in paths:
        if is_shards(path) and not (root / path).is_dir():
            continue
        folder = _existing(root, path)
        found = _class_folders(folder)
        if not found:
            raise UserError(f"{folder}: no class folders in it; labeled images lie in one folder a class")
        names |= {_class_name(entry) for entry in found}
    for name in names:
        if not name.isprintable():
            raise UserError(f"{name!r}: a class folder's name must be valid, printable text; rename it")
    return sorted(names)


def _existing(root: Path, path: str) -> Path:
    folder = root / path
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; check the paths under `ingest` in params.yaml")
    return folder


def _class_folders(folder: Path) -> list[Path]:
    return sorted(entry for entry in folder.iterdir() if entry.is_dir() and not _is_a_machines(entry.name))


def _is_a_machines(name: str) -> bool:
    return name.startswith(".") or name in NO_CLASSES


def _class_name(folder: Path) -> str:
    """The folder's name, composed: macOS takes letters and their accents apart, others do not."""
    return unicodedata.normalize("NFC", folder.name)


def _from_folder(root: Path, path: str, ignored: Counter[str], *, labeled: bool) -> Iterator[SourceImage]:
    folder = _existing(root, path)
    found = _Found(root)
    if not labeled:
        empty = True
        for file in _image_files(str(folder), ignored, set()):
            empty = False
            yield found.image(file, None)
        if empty:
            raise _empty_folder(folder)
        return
    class_paths = _class_folders(folder)
    for entry in sorted(folder.iterdir()):
        if _is_a_machines(entry.name):
            ignored[HIDDEN] += 1
        elif entry.is_file() and entry.suffix.lower() in SUFFIXES:
            yield found.image(str(entry), None, problem="lies beside the class folders, so it has no class")
        elif not entry.is_dir():
            count_other(ignored, entry.suffix.lower())
    for class_path in class_paths:
        empty, class_name = True, _class_name(class_path)
        for file in _image_files(str(class_path), ignored, set()):
            empty = False
            yield found.image(file, class_name)
        if empty:
            raise _empty_class(class_path)


def _empty_folder(folder: Path) -> UserError:
    return UserError(f"{folder}: no images in it; is it mounted? Add some, or take it out of `ingest`")


def _empty_class(folder: Path) -> UserError:
    return UserError(f"{folder}: class folder without images; add some or remove the folder")


# Names are text from here on: a `Path` for each of millions of files takes longer than reading them.
def _image_files(folder: str, ignored: Counter[str], visited: set[str]) -> Iterator[str]:
    """Image files below a folder, sorted, following links but to no folder twice.

    Raises UserError for a link that cannot be followed just now: its images would be taken for gone.
    """
    real = os.path.realpath(folder)
    if real in visited:
        ignored["folder that is linked again"] += 1
        return
    visited.add(real)
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        name = entry.name
        # A name that begins with a dot is none of ours.
        _, dot, end = name.rpartition(".")
        suffix = f"{dot}{end}".lower().rstrip(".") if dot else ""
        if _is_a_machines(name):
            ignored[HIDDEN] += 1
        elif _is_folder(entry, suffix):
            yield from _image_files(entry.path, ignored, visited)
        elif suffix not in SUFFIXES:
            count_other(ignored, suffix)
        elif _is(entry.is_file) or entry.is_symlink():
            yield entry.path
        else:
            ignored["not a file"] += 1


def _is_folder(entry: "os.DirEntry[str]", suffix: str) -> bool:
    try:
        return entry.is_dir()
    except OSError as error:
        # An image that cannot be read for a moment keeps its key.
        if error.errno in NOTHING or suffix in SUFFIXES:
            return False
        raise UserError(
            f"{entry.path}: cannot be looked at ({error.strerror}), and its images would be taken for gone; mount it, "
            "or take the link away"
        ) from None


def _is(question: Callable[[], bool]) -> bool:
    """What a folder's entry answers; a link in a circle is nothing."""
    try:
        return question()
    except OSError:
        return False


class _Found:
    """Files as images, called as the manifest has them: relative to the root where that can be, valid UTF-8."""

    def __init__(self, root: Path) -> None:
        self.root, self.start = root, f"{root}{os.sep}"

    def image(self, file: str, class_name: str | None, problem: str | None = None) -> SourceImage:
        # `relpath` asks for the working folder each time.
        plain = file.startswith(self.start) and f"{os.sep}..{os.sep}" not in file
        place = file[len(self.start) :] if plain else os.path.relpath(file, self.root)
        if os.sep != "/":
            place = place.replace(os.sep, "/")
        return SourceImage(as_text(place), class_name, partial(_read, file), problem)


def _read(file: str) -> bytes:
    # An `open` file takes as long again, which for small images is a third of all.
    opened = os.open(file, os.O_RDONLY | getattr(os, "O_BINARY", 0))
    try:
        size = os.fstat(opened).st_size
        if reason := too_large(size):
            raise BrokenImage(reason)
        data = os.read(opened, size + 1)
        while len(data) != size and (more := os.read(opened, MAX_BYTES)):  # it grows, or the system gives less
            data += more
        return data
    finally:
        os.close(opened)
