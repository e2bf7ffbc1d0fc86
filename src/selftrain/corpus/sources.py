"""Where images come from: class folders, flat folders and WebDataset shards, as one stream."""

import os
import tarfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath

from selftrain.images.decode import SUFFIXES
from selftrain.plumbing.errors import UserError

OTHER_MEMBERS = ("cls", "json")
"""What WebDataset samples hold beside their image."""


@dataclass(frozen=True, slots=True)
class SourceImage:
    """One image as found, before anything is known of its bytes."""

    source: str
    """Where it was found: a path relative to the ingest root, or ``shard::member``. Unique in its split."""
    class_name: str | None
    read: Callable[[], bytes]
    problem: str | None = None
    """Set when the image cannot be used whatever its bytes are."""


def find_images(
    root: Path, paths: list[str], *, labeled: bool, classes: list[str] | None, ignored: Counter[str]
) -> Iterator[SourceImage]:
    """All images under ``paths``, in a fixed order; ``ignored`` counts the files that are none, by suffix.

    ``root`` is what relative paths are relative to. With ``labeled``, folders must hold one folder a
    class and shards a ``.cls`` member a sample, an index into ``classes``.

    Raises UserError for paths that do not exist, empty class folders and damaged shards.
    """
    for path in paths:
        if _is_shards(path):
            yield from _from_shards(root, path, ignored, labeled=labeled, classes=classes)
        else:
            yield from _from_folder(root, path, ignored, labeled=labeled)


def class_folders(root: Path, paths: list[str]) -> list[str]:
    """The sorted names of the class folders under ``paths``; none for shards.

    Raises UserError for a folder without any, and for names that are not valid text.
    """
    names = set()
    for path in paths:
        if _is_shards(path):
            continue
        folder = _existing(root, path)
        found = _class_folders(folder)
        if not found:
            raise UserError(f"{folder}: no class folders in it; labeled images lie in one folder a class")
        names |= {entry.name for entry in found}
    for name in names:
        if not name.isprintable():
            raise UserError(f"{name!r}: a class folder's name must be valid, printable text; rename it")
    return sorted(names)


def _is_shards(path: str) -> bool:
    return "://" in path or path.endswith((".tar", ".tar.gz", ".tgz", ".tar.zst"))


def _existing(root: Path, path: str) -> Path:
    folder = root / path
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; check the paths under `ingest` in params.yaml")
    return folder


def _class_folders(folder: Path) -> list[Path]:
    return sorted(entry for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))


def _from_folder(root: Path, path: str, ignored: Counter[str], *, labeled: bool) -> Iterator[SourceImage]:
    folder = _existing(root, path)
    if not labeled:
        for file in _image_files(folder, ignored, set()):
            yield _file_image(root, file, None)
        return
    class_paths = _class_folders(folder)
    for file in sorted(folder.iterdir()):
        if file.is_file() and file.suffix.lower() in SUFFIXES:
            yield _file_image(root, file, None, problem="lies beside the class folders, so it has no class")
    for class_path in class_paths:
        empty = True
        for file in _image_files(class_path, ignored, set()):
            empty = False
            yield _file_image(root, file, class_path.name)
        if empty:
            raise UserError(f"{class_path}: class folder without images; add some or remove the folder")


def _image_files(folder: Path, ignored: Counter[str], visited: set[str]) -> Iterator[Path]:
    """Image files below a folder, sorted, following links but no link twice."""
    real = os.path.realpath(folder)
    if real in visited:
        return
    visited.add(real)
    for entry in sorted(folder.iterdir()):
        if entry.name.startswith("."):
            continue
        if entry.is_dir():
            yield from _image_files(entry, ignored, visited)
        elif entry.suffix.lower() not in SUFFIXES:
            ignored[entry.suffix.lower()] += 1
        elif entry.is_file() or entry.is_symlink():
            yield entry
        else:
            ignored["not a file"] += 1


def _file_image(root: Path, file: Path, class_name: str | None, problem: str | None = None) -> SourceImage:
    return SourceImage(_recorded_path(root, file), class_name, file.read_bytes, problem)


def _recorded_path(root: Path, file: Path) -> str:
    """The path as the manifest keeps it: relative where it can be, valid UTF-8 whatever the file is called."""
    relative = os.path.relpath(file, root)
    return PurePosixPath(relative).as_posix().encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _from_shards(
    root: Path, pattern: str, ignored: Counter[str], *, labeled: bool, classes: list[str] | None
) -> Iterator[SourceImage]:
    import braceexpand
    import fsspec

    try:
        urls = list(braceexpand.braceexpand(pattern))
    except ValueError:
        raise UserError(f"{pattern}: its braces do not match; write, for example, {{000..099}}") from None
    for url in urls:
        location = url if "://" in url else str(root / url)
        try:
            with fsspec.open(location, "rb", compression="infer") as file:
                yield from _from_tar(url, file, ignored, labeled=labeled, classes=classes)
        except FileNotFoundError:
            raise UserError(f"{location}: no such shard; check the paths under `ingest` in params.yaml") from None
        except ImportError as error:
            raise UserError(f"{location}: {error}; install it beside selftrain") from None
        except (tarfile.TarError, EOFError) as error:
            raise UserError(f"{location}: damaged shard ({error}); fetch it again") from None


def _from_tar(
    url: str, file: object, ignored: Counter[str], *, labeled: bool, classes: list[str] | None
) -> Iterator[SourceImage]:
    with tarfile.open(fileobj=file, mode="r:") as tar:  # type: ignore[call-overload]
        sample: dict[str, bytes] = {}
        stem = ""
        for member in tar:
            if not member.isfile():
                continue
            member_stem, suffix = _split_at_first_dot(member.name)
            if member_stem != stem and sample:
                yield from _sample_images(url, stem, sample, labeled, classes, ignored)
                sample = {}
            stem = member_stem
            content = tar.extractfile(member)
            assert content is not None
            sample[suffix] = content.read()
            if len(sample[suffix]) != member.size:
                raise tarfile.ReadError(f"{member.name} is cut short")
        if sample:
            yield from _sample_images(url, stem, sample, labeled, classes, ignored)
        # tarfile takes a missing end for the end; a whole tar has a block of zeros there.
        tar.fileobj.seek(tar.offset)
        if tar.fileobj.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
            raise tarfile.ReadError("cut short: its end mark is missing")


def _split_at_first_dot(name: str) -> tuple[str, str]:
    """WebDataset's grouping: a sample's members share the path up to the first dot of the file name."""
    folder, _, base = name.rpartition("/")
    stem, _, suffix = base.partition(".")
    return (f"{folder}/{stem}" if folder else stem), suffix.lower()


def _sample_images(
    url: str, stem: str, sample: dict[str, bytes], labeled: bool, classes: list[str] | None, ignored: Counter[str]
) -> Iterator[SourceImage]:
    """The sample's image; all of them if none has a plain suffix (``cat.0.png``, ``cat.1.png``)."""
    images = [suffix for suffix in sample if f".{suffix.rpartition('.')[2]}" in SUFFIXES]
    plain = [suffix for suffix in images if "." not in suffix]
    ignored.update(f".{suffix}" for suffix in sample if suffix not in (plain or images) and suffix not in OTHER_MEMBERS)
    for suffix in plain or images:
        class_name, problem = _class_of_sample(sample, classes) if labeled else (None, None)
        yield SourceImage(f"{url}::{stem}.{suffix}", class_name, partial(bytes, sample[suffix]), problem)


def _class_of_sample(sample: dict[str, bytes], classes: list[str] | None) -> tuple[str | None, str | None]:
    if "cls" not in sample:
        return None, "has no .cls member, so it has no class"
    text = sample["cls"].decode("utf-8", "replace").strip()
    if not (text.isascii() and text.isdigit()):
        return None, f"its .cls member is {text[:40]!r}, not a class index"
    if classes is None:
        raise UserError("params.yaml: ingest.classes: missing; name the classes that the shards' .cls indices mean")
    if int(text) >= len(classes):
        return None, f"its .cls member is {text}, and `ingest.classes` names {len(classes)} classes"
    return classes[int(text)], None
