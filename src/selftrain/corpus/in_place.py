"""A pool that stays where it is: its shards are looked at once, and only their manifest is written here.

Each shard of the pool is a unit of work: one process reads it from its beginning to its end, and writes its manifest
part and then its pointer. So a killed ingest goes on with the shards that have no pointer, and a shard whose version is
the pointer's is not read again.
"""

from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import xxhash

from selftrain.corpus.append import SplitCounts, first_free_shard, promise_shards
from selftrain.corpus.archives import compression_of, images_of_shard, location_of, shards_of
from selftrain.corpus.inspect import image_facts
from selftrain.corpus.seen import Seen
from selftrain.corpus.shards import recover
from selftrain.corpus.source_image import SourceImage
from selftrain.images.decode import BrokenImage
from selftrain.images.reader import DEEP_COLUMNS, ShardReader
from selftrain.plumbing.engine import Engine
from selftrain.plumbing.errors import UserError
from selftrain.plumbing.secrets import masked
from selftrain.plumbing.stores import Version, fetch, is_url, version_of
from selftrain.tables.keys import MAX_IMAGES_PER_SHARD, make_key, shard_name, shard_of_file, shard_of_part
from selftrain.tables.manifest import manifest_parts, manifest_schema, part_path
from selftrain.tables.parquet import read_arrow, row_count, write_arrow
from selftrain.tables.pointers import Pointer, all_pointers, as_stored, read_pointer, write_pointer
from selftrain.tables.seal import is_sealed

ASKED_TOGETHER = 32
"""Shards whose versions are asked for side by side."""
LINK = "is a link, or has holes, and cannot be read in place"


def update_in_place(
    split_folder: Path,
    split: str,
    root: Path,
    patterns: Iterable[str],
    *,
    max_pixels: int,
    verify: bool,
    ignored: Counter[str],
    engine: Engine,
    on_images: Callable[[int], None],
    before_removal: Callable[[SplitCounts], None],
) -> SplitCounts:
    """Make a split's manifest that of the shards that ``patterns`` name, which are not copied.

    Shards that are known and have not changed are not read, but with ``verify`` those on this machine's disks. One that
    has changed gets another number, so that no key comes to mean another image. Raises UserError for shards that are
    missing, damaged or compressed, and for addresses with a password, which the manifest would keep.
    """
    recover(split_folder)
    urls = [url for pattern in patterns for url in shards_of(pattern)]
    for url in urls:
        _check(url)
    # One shard may be named in several ways.
    spelled = {as_stored(root, url, split_folder): url for url in reversed(urls)}
    often = Counter(as_stored(root, url, split_folder) for url in urls)
    known = _known(split_folder)
    with ThreadPoolExecutor(ASKED_TOGETHER) as threads:
        found = threads.map(version_of, (location_of(root, spelled[each]) for each in often))
        versions = dict(zip(often, found, strict=True))
    pointers: dict[int, Pointer] = {}
    for location, version in versions.items():
        shard, pointer = known.get(location, (-1, None))
        # A store that tells nothing of a file's content may have another one each time.
        if pointer is not None and pointer.version == version and version.tag:
            pointers[shard] = pointer
    if verify:
        here = [shard for shard, pointer in pointers.items() if not is_url(pointer.location)]
        for shard, whole in engine.done(partial(_verifier, split_folder), here, shard_name, f"verify {split}"):
            if not whole:
                print(f"{masked(pointers.pop(shard).location)}: is not what was ingested; taken in anew")
    there = {pointer.location for pointer in pointers.values()}
    jobs: list[Job] = []
    free = first_free_shard(split_folder)
    for location, version in versions.items():
        if location not in there:
            jobs.append(Job(split_folder, split, free, root, spelled[location], location, version, max_pixels))
            free += 1
    # Numbers are promised before they are used: a killed ingest does not give them to other shards.
    promise_shards(split_folder, free)
    for _, images in engine.done(_worker, jobs, lambda job: masked(job.url), f"ingest {split}"):
        on_images(images)
    new = {job.shard: _written(split_folder, job.shard) for job in jobs}
    counts = _counts(pointers, new, often, ignored)
    before_removal(counts)
    counts.removed = _remove_others(split_folder, pointers.keys() | new.keys())
    return counts


def _verifier(split_folder: Path) -> Callable[[int], bool]:
    return partial(_is_what_was_ingested, split_folder)


def _is_what_was_ingested(split_folder: Path, shard: int) -> bool:
    """Whether every image of a shard has the bytes that its row of the manifest tells of."""
    part = part_path(split_folder, shard)
    if not part.exists():
        return True
    with ShardReader(split_folder) as reader:
        return not any(reader.damaged(read_arrow(part, DEEP_COLUMNS)))


def _written(split_folder: Path, shard: int) -> Pointer:
    pointer = read_pointer(split_folder, shard)
    assert pointer is not None
    return pointer


def _check(url: str) -> None:
    if compression_of(url) is not None:
        raise UserError(
            f"{masked(url)}: is compressed, so it cannot be read in place; unpack it, or leave `in_place` out"
        )
    if masked(url) != url:
        raise UserError(
            f"{masked(url)}: has a password in its address, which the manifest would keep; give it to the store's "
            "client, as in AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        )


def _known(split_folder: Path) -> dict[str, tuple[int, Pointer]]:
    """Shards whose pointer and manifest part are whole, by location."""
    return {
        pointer.location: (shard, pointer)
        for shard, pointer in all_pointers(split_folder).items()
        if pointer is not None and (pointer.images == 0 or is_sealed(part_path(split_folder, shard)))
    }


@dataclass(frozen=True)
class Job:
    """A shard to look at."""

    split_folder: Path
    split: str
    shard: int
    root: Path
    url: str
    location: str
    """As its pointer has it."""
    version: Version
    max_pixels: int


def _worker() -> Callable[[Job], int]:
    return index_shard


def index_shard(job: Job) -> int:
    """Read a shard, write its manifest part and its pointer; return how many images it has that can be used.

    Raises UserError if it is missing or damaged, or if it changes meanwhile.
    """
    import pyarrow as pa

    path, ignored, sources = location_of(job.root, job.url), Counter[str](), Seen()
    if is_url(path):
        fetch(path, [(1, 2)])  # one byte: a server without ranges is told here, not hours later
    rows: list[dict[str, Any]] = []
    quarantined: list[list[str]] = []
    found = twice = 0
    for image in images_of_shard(job.root, job.url, ignored, labeled=False, classes=None):
        found += 1
        if sources.add(xxhash.xxh3_64_intdigest(image.source.encode())):
            twice += 1
            continue
        try:
            row = _row(image, job.max_pixels)
        except BrokenImage as error:
            quarantined.append([image.source, str(error)])
            continue
        if len(rows) == MAX_IMAGES_PER_SHARD:
            raise UserError(f"{masked(job.url)}: has more than {MAX_IMAGES_PER_SHARD:,} images; cut it into several")
        key = make_key(job.split, job.shard, len(rows))
        rows.append({"key": key, "shard": shard_name(job.shard), "label": None, **row})
    if version_of(path) != job.version:
        raise UserError(f"{masked(job.url)}: changes while it is read; run it again when it is complete")
    if rows:
        write_arrow(pa.Table.from_pylist(rows, schema=manifest_schema()), part_path(job.split_folder, job.shard))
    write_pointer(
        job.split_folder,
        job.shard,
        Pointer(
            job.location, job.version.size, job.version.tag, found, quarantined, twice, dict(sorted(ignored.items()))
        ),
    )
    return len(rows)


def _row(image: SourceImage, max_pixels: int) -> dict[str, Any]:
    if image.problem:
        raise BrokenImage(image.problem)
    if image.offset is None:
        raise BrokenImage(LINK)
    data = image.read()
    facts = image_facts(data, max_pixels)
    return {"offset": image.offset, "size": len(data), **facts.as_row(), "source": image.source}


def _counts(
    kept: dict[int, Pointer], new: dict[int, Pointer], often: dict[str, int], ignored: Counter[str]
) -> SplitCounts:
    """What all shards together have, and in ``ignored`` their members that are no images.

    ``often``: how often each location was named; from the second time on its images are listed twice.
    """
    counts = SplitCounts()
    for shard, pointer in sorted((kept | new).items()):
        repeated = (often[pointer.location] - 1) * pointer.found
        counts.found += pointer.found + repeated
        counts.listed_twice += pointer.listed_twice + repeated
        counts.quarantined += [(source, reason) for source, reason in pointer.quarantined]
        counts.added += pointer.images if shard in new else 0
        counts.kept += pointer.images if shard in kept else 0
        ignored.update(pointer.ignored)
    assert counts.found == counts.kept + counts.added + len(counts.quarantined) + counts.listed_twice
    return counts


def _remove_others(split_folder: Path, shards: Iterable[int]) -> int:
    """Remove the parts, pointers and copied shards of all but some shards; return how many images they had."""
    removed, stay = 0, set(shards)
    for part in manifest_parts(split_folder):
        shard = shard_of_part(part.name)
        if shard not in stay:
            removed += row_count(part) if is_sealed(part) else 0
            part.unlink()
    for path in (*split_folder.glob("shard-*.json"), *split_folder.glob("shard-*.tar")):
        if shard_of_file(path.name) not in stay:
            path.unlink()
    return removed
