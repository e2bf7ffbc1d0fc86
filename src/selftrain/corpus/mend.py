"""Shards and manifest parts that are not what was written: found, and mended from one another and from the sources.

A shard follows from its manifest part and its images, byte by byte, and a part from its shard. So a part that is lost
or damaged is made anew from its shard, and a shard from its part and the sources' images. Keys stay.

Shards whose size and time are those of the last look are believed, unless all are to be looked at.
"""

import io
import json
import tarfile
from pathlib import Path
from typing import Any, BinaryIO

from selftrain.corpus.inspect import image_facts
from selftrain.corpus.shard_tar import ShardTar
from selftrain.images.decode import EXTENSIONS
from selftrain.images.reader import ShardReader
from selftrain.plumbing.errors import UserError
from selftrain.plumbing.files import as_file_name, write_json
from selftrain.plumbing.locks import WORK
from selftrain.tables.keys import shard_name, shard_of_file, shard_of_part
from selftrain.tables.manifest import manifest_parts, manifest_schema, part_path
from selftrain.tables.parquet import read_arrow, write_arrow
from selftrain.tables.seal import is_sealed


def mend_parts(split_folder: Path, max_pixels: int) -> None:
    """Make manifest parts anew that are damaged, or lost beside their shards.

    Raises UserError if the shard is damaged too.
    """
    found = {shard_of_part(path.name): path for path in manifest_parts(split_folder)}
    shards = {shard_of_file(path.name) for path in split_folder.glob("shard-*.tar")}
    for shard in sorted(found.keys() | shards):
        path, tar = part_path(split_folder, shard), split_folder / shard_name(shard)
        if shard in found and is_sealed(path):
            continue
        try:
            rows = rows_of_shard(tar, max_pixels)
        except (UserError, tarfile.TarError, OSError, ValueError, KeyError) as error:
            raise UserError(
                f"{path}: damaged, and cannot be made from {tar} ({error}); restore both with `dvc checkout`, or "
                "remove both: their images are then taken in again, with new keys"
            ) from None
        import pyarrow as pa

        write_arrow(pa.Table.from_pylist(rows, schema=manifest_schema()), path)
        print(f"{path}: was lost or damaged; made anew from {tar.name}, {len(rows)} images")


def rows_of_shard(tar: Path, max_pixels: int) -> list[dict[str, Any]]:
    """The manifest rows of a shard, as they were when it was written."""
    rows: list[dict[str, Any]] = []
    extensions = {extension: name for name, extension in EXTENSIONS.items()}
    with tarfile.open(tar) as opened:
        for member in opened:
            key, _, suffix = member.name.partition(".")
            data = opened.extractfile(member).read()  # type: ignore[union-attr]
            if suffix in extensions:
                facts = image_facts(data, max_pixels)
                rows.append({"key": int(key), "shard": tar.name, "offset": member.offset_data, "size": len(data)})
                rows[-1] |= {"label": None, **facts.as_row()}
            elif suffix == "cls":
                rows[-1]["label"] = int(data)
            else:
                rows[-1]["source"] = json.loads(data)["source"]
    return rows


def damaged_shards(split_folder: Path, all_of_them: bool) -> dict[int, set[int]]:
    """The shards that are not what their manifest parts say, each with the keys of the images that it has lost."""
    looked_at = {} if all_of_them else _looked_at(split_folder)
    damaged = {}
    for part in manifest_parts(split_folder):
        shard = shard_of_part(part.name)
        tar = split_folder / shard_name(shard)
        if tar.is_file() and looked_at.get(tar.name) == _size_and_time(tar):
            continue
        lost = _lost(split_folder, shard, read_arrow(part).to_pylist())
        if lost is not None:
            damaged[shard] = lost
    return damaged


def _lost(split_folder: Path, shard: int, rows: list[dict[str, Any]]) -> set[int] | None:
    """Keys of the images whose bytes are not those that were ingested; None if the shard is whole to its last byte."""
    lost: set[int] = set()
    tar = split_folder / shard_name(shard)
    if not tar.is_file():
        return {row["key"] for row in rows}
    with ShardReader(split_folder) as reader, tar.open("rb") as there:
        written = ShardTar(_Compared(there))
        for row in rows:
            try:
                data = reader.read_row(row)
            except UserError:
                lost.add(row["key"])
                continue
            written.add(row, data)
        if lost:
            return lost
        written.close()
        return None if written.file.equal and not there.read(1) else lost


class _Compared(io.RawIOBase):
    """A file that is written nowhere: it compares what would be written with one that is there."""

    def __init__(self, there: BinaryIO) -> None:
        self.there, self.equal = there, True

    def tell(self) -> int:
        """Where the next bytes begin."""
        return self.there.tell()

    def write(self, data: Any) -> int:
        """Compare the next bytes."""
        self.equal = self.equal and self.there.read(len(data)) == bytes(data)
        return len(data)


def remember(split_folder: Path) -> None:
    """Note the sizes and times of a split's shards, which have been looked at or were written just now."""
    shards = {path.name: _size_and_time(path) for path in sorted(split_folder.glob("shard-*.tar"))}
    write_json(_note(split_folder), shards)


def _looked_at(split_folder: Path) -> dict[str, list[int]]:
    try:
        return dict(json.loads(_note(split_folder).read_text(encoding="utf-8")))
    except (FileNotFoundError, ValueError, TypeError):
        return {}


def _note(split_folder: Path) -> Path:
    return WORK / "looked_at" / f"{as_file_name(split_folder.resolve())}.json"


def _size_and_time(path: Path) -> list[int]:
    status = path.stat()
    return [status.st_size, status.st_mtime_ns]
