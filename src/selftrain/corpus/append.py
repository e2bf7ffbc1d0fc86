"""Bringing one split up to date: new images into new shards, removed ones out of their own shard."""

from array import array
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import xxhash
from numpy.typing import NDArray

from selftrain.corpus.examine import Examiner, examined, fingerprint
from selftrain.corpus.mend import damaged_shards, mend_parts, remember
from selftrain.corpus.seen import Seen, holds
from selftrain.corpus.shards import Shard, ShardWriter, recover
from selftrain.corpus.source_image import SourceImage
from selftrain.images.reader import ShardReader
from selftrain.plumbing.engine import Engine
from selftrain.plumbing.errors import UserError
from selftrain.plumbing.files import atomic_path
from selftrain.tables.keys import shard_name, shard_of_part
from selftrain.tables.manifest import iter_manifest, manifest_parts, part_path
from selftrain.tables.parquet import read_arrow
from selftrain.tables.pointers import all_pointers, pointer_path

NEXT_SHARD = "next_shard"


@dataclass
class SplitCounts:
    """What became of a split's images: found = kept + added + quarantined + listed_twice."""

    found: int = 0
    kept: int = 0
    added: int = 0
    removed: int = 0
    listed_twice: int = 0
    quarantined: list[tuple[str, str]] = field(default_factory=list)
    """(source, reason) of each image that could not be used."""


class KnownImages:
    """The images that a split already holds, by source, class and content: 16 bytes an image."""

    def __init__(self, split_folder: Path, classes: list[str]) -> None:
        self._folder, self._classes = split_folder, classes
        self._sorted = np.sort(np.fromiter((print_ for _, print_ in self._rows()), np.uint64))
        self._seen = array("Q")

    def __contains__(self, print_: int) -> bool:
        return holds(self._sorted, print_)

    def see(self, print_: int) -> None:
        """Remember that a known image is still there."""
        self._seen.append(print_)

    def of_source(self, source: str) -> int | None:
        """The fingerprint of a source's image; None if there is none."""
        sources, prints = self._by_source
        print_ = source_print(source)
        return int(prints[np.searchsorted(sources, np.uint64(print_))]) if holds(sources, print_) else None

    @cached_property
    def _by_source(self) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
        """The sources' fingerprints, sorted, and the images' in their order: 16 bytes more an image."""
        rows = [(source_print(source), print_) for source, print_ in self._rows() if print_ in self]
        both = np.array(rows, np.uint64).reshape(-1, 2)
        both = both[both[:, 0].argsort()]
        return both[:, 0].copy(), both[:, 1].copy()

    def _rows(self) -> Iterator[tuple[str, int]]:
        """Every image's source and fingerprint."""
        if not (self._folder / "manifest").is_dir():
            return
        names = ["source", "label", "sha256"]
        for _, table in iter_manifest(self._folder, names):
            for source, label, digest in zip(*(table[name].to_pylist() for name in names), strict=True):
                yield source, _fingerprint(source, label, digest, self._classes)

    def gone(self) -> set[int]:
        """Fingerprints of known images that were not seen."""
        gone = np.ones(len(self._sorted), bool)
        gone[np.searchsorted(self._sorted, np.array(self._seen, np.uint64))] = False
        return set(self._sorted[gone].tolist())


def update_split(
    split_folder: Path,
    split: str,
    images: Iterable[SourceImage],
    classes: list[str],
    *,
    images_per_shard: int,
    max_pixels: int,
    engine: Engine,
    verify: bool = False,
    on_image: Callable[[], None] = lambda: None,
    before_removal: Callable[["SplitCounts"], None] = lambda counts: None,
) -> SplitCounts:
    """Make a split hold just ``images``, touching only shards that have to change.

    A broken image is counted with its reason and left out. Killed at any moment and run again, it
    ends with the same shards. ``before_removal`` may raise before images that are gone are removed: a disk that is
    not mounted must not empty the corpus. Damaged shards are written anew; with ``verify`` all shards are read to find
    them, else those that changed since the last time.
    """
    _remove_in_place_shards(split_folder)
    recover(split_folder)
    mend_parts(split_folder, max_pixels)
    damaged = damaged_shards(split_folder, verify)
    counts = SplitCounts()
    known = KnownImages(split_folder, classes)
    lost = _fingerprints(split_folder, damaged, classes)
    found_again: dict[int, bytes] = {}
    class_index = {name: index for index, name in enumerate(classes)}
    writer = ShardWriter(split_folder, split, images_per_shard, first_free_shard(split_folder))
    sources = Seen()
    unreadable: list[tuple[str, str | None]] = []

    for image, seen in examined(images, Examiner(known, lost, max_pixels), engine):
        on_image()
        counts.found += 1
        if seen.facts is None and seen.problem is None:
            known.see(seen.print_)
            if seen.print_ in lost:
                found_again[seen.print_] = seen.data
        if sources.add(source_print(image.source)):
            counts.listed_twice += 1
        elif seen.unreadable and (there := known.of_source(image.source)) is not None and there not in lost:
            # So it has the same key when it can be read again.
            known.see(there)
            counts.kept += 1
            unreadable.append((image.source, seen.problem))
        elif seen.problem is not None:
            counts.quarantined.append((image.source, seen.problem))
        elif seen.facts is None:
            counts.kept += 1
        else:
            counts.added += 1
            label = None if image.class_name is None else class_index[image.class_name]
            writer.add(seen.data, seen.facts, label, image.source)
    writer.close()
    if unreadable:
        (first, problem), others = unreadable[0], len(unreadable) - 1
        print(f"{split}: {first} {problem}, and {others:,} others; they stay as they were ingested")
    before_removal(counts)
    promise_shards(split_folder, writer.next_shard)
    counts.removed = _rewrite(split_folder, known.gone(), damaged, found_again, classes)
    remember(split_folder)
    assert counts.found == counts.kept + counts.added + len(counts.quarantined) + counts.listed_twice
    return counts


def _rewrite(
    split_folder: Path,
    gone: set[int],
    damaged: dict[int, set[int]],
    found_again: dict[int, bytes],
    classes: list[str],
) -> int:
    """Write shards anew: without images that are gone, and the damaged ones; return how many images are gone.

    Keys of the others stay. ``damaged`` are the lost images of each damaged shard, by key, and ``found_again`` their
    bytes, by fingerprint.
    """
    removed = 0
    for part in manifest_parts(split_folder) if gone or damaged else []:
        shard = shard_of_part(part.name)
        lost = damaged.get(shard, set())
        rows = [(row, _row_fingerprint(row, classes)) for row in read_arrow(part).to_pylist()]
        stay = [(row, print_) for row, print_ in rows if print_ not in gone]
        removed += len(rows) - len(stay)
        if not stay:
            part.unlink()
            (split_folder / shard_name(shard)).unlink(missing_ok=True)
        elif len(stay) < len(rows) or shard in damaged:
            rewritten = Shard(split_folder, shard)
            with ShardReader(split_folder) as reader:
                for row, print_ in stay:
                    data = found_again[print_] if row["key"] in lost else reader.read_row(row)
                    rewritten.add(row, data)
            rewritten.commit()
        if shard in damaged:
            print(
                f"{split_folder / shard_name(shard)}: was damaged; written anew, {len(lost)} images from their sources"
            )
    return removed


def _fingerprints(split_folder: Path, damaged: dict[int, set[int]], classes: list[str]) -> set[int]:
    """Those of the images that damaged shards have lost."""
    rows = [row for shard in damaged for row in read_arrow(part_path(split_folder, shard)).to_pylist()]
    lost = set().union(*damaged.values())
    return {_row_fingerprint(row, classes) for row in rows if row["key"] in lost}


def first_free_shard(split_folder: Path) -> int:
    """The first shard's number, and so the first key, that was never given, even if the last shard was removed whole.

    Raises UserError if the file that remembers it is damaged.
    """
    shards = [shard_of_part(path.name) for path in manifest_parts(split_folder)]
    return max(_number_in(split_folder / NEXT_SHARD), max(shards, default=-1) + 1)


def promise_shards(split_folder: Path, free: int) -> None:
    """Remember that shards before ``free`` have been given."""
    path = split_folder / NEXT_SHARD
    if free != _number_in(path):
        with atomic_path(path) as temporary:
            temporary.write_text(f"{free}\n")


def _remove_in_place_shards(split_folder: Path) -> None:
    """Remove the manifest of shards that were not copied, when the split's images are to be copied from now on."""
    for shard in all_pointers(split_folder):
        part_path(split_folder, shard).unlink(missing_ok=True)
        pointer_path(split_folder, shard).unlink()


def _number_in(next_shard: Path) -> int:
    if not next_shard.exists():
        return 0
    text = next_shard.read_text(errors="replace").strip()
    if not (text.isascii() and text.isdigit()):
        raise UserError(f"{next_shard}: holds no number; restore it with `dvc checkout`")
    return int(text)


def source_print(source: str) -> int:
    """64 bits of an image's place."""
    return xxhash.xxh3_64_intdigest(source.encode())


def _row_fingerprint(row: dict[str, Any], classes: list[str]) -> int:
    return _fingerprint(row["source"], row["label"], row["sha256"], classes)


def _fingerprint(source: str, label: int | None, digest: bytes, classes: list[str]) -> int:
    return fingerprint(source, None if label is None else classes[label], digest)
