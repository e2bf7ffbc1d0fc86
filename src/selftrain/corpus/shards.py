"""Writing shards: a WebDataset tar and its manifest part, always both old or both new.

Both are written under staged names, then renamed, the tar first. The next process after a kill calls
``recover``: it renames a staged part whose tar was already renamed.
"""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from selftrain.corpus.inspect import ImageFacts
from selftrain.corpus.shard_tar import ShardTar
from selftrain.plumbing.errors import UserError
from selftrain.plumbing.files import remove_temporary_files, sync
from selftrain.plumbing.room import writing
from selftrain.tables.keys import make_key, shard_name, shard_of_part
from selftrain.tables.manifest import manifest_schema, part_path
from selftrain.tables.parquet import write_arrow

STAGED = "staged-"
AT_ONCE = 2**20
"""Bytes that are written together: small images are many."""


class Shard:
    """One shard being written: ``add`` images in order, then ``commit``.

    The same rows and bytes give the same files, byte for byte: no times, no owners.
    """

    def __init__(self, split_folder: Path, shard: int) -> None:
        self.tar_path = split_folder / shard_name(shard)
        self.part_path = part_path(split_folder, shard)
        self.rows: list[dict[str, Any]] = []
        self._file = _staged(self.tar_path).open("wb", buffering=AT_ONCE)
        self._tar = ShardTar(self._file)

    def add(self, row: dict[str, Any], data: bytes) -> None:
        """Add an image: its manifest row, in which ``shard, offset, size`` are filled in here, and its bytes."""
        with self._whole_or_gone():
            offset = self._tar.add(row, data)
        self.rows.append(row | {"shard": self.tar_path.name, "offset": offset, "size": len(data)})

    def commit(self) -> None:
        """Put the shard in its place, over an older one of the same number."""
        import pyarrow as pa

        with self._whole_or_gone():
            self._tar.close()
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
        write_arrow(pa.Table.from_pylist(self.rows, schema=manifest_schema()), _staged(self.part_path))
        # One after the other on the disk too: a part whose shard is only staged would be lost with it.
        for path in (self.tar_path, self.part_path):
            _staged(path).replace(path)
            sync(path.parent)

    @contextlib.contextmanager
    def _whole_or_gone(self) -> Iterator[None]:
        """Remove the half shard if the disk takes no more."""
        try:
            with writing(self.tar_path):
                yield
        except UserError:
            _staged(self.tar_path).unlink(missing_ok=True)
            raise


class ShardWriter:
    """Appends images to a split, ``images_per_shard`` to a shard; existing shards are not touched."""

    def __init__(self, split_folder: Path, split: str, images_per_shard: int, first_shard: int) -> None:
        self.split_folder = split_folder
        self.split = split
        self.images_per_shard = images_per_shard
        self.next_shard = first_shard
        self._shard: Shard | None = None

    def add(self, data: bytes, facts: ImageFacts, label: int | None, source: str) -> None:
        """Add one image, bytes as found."""
        if self._shard is None:
            self._shard = Shard(self.split_folder, self.next_shard)
        key = make_key(self.split, self.next_shard, len(self._shard.rows))
        self._shard.add({"key": key, "label": label, **facts.as_row(), "source": source}, data)
        if len(self._shard.rows) == self.images_per_shard:
            self.close()

    def close(self) -> None:
        """Commit the shard that is open, however short."""
        if self._shard is not None:
            self._shard.commit()
            self._shard = None
            self.next_shard += 1


def recover(split_folder: Path) -> None:
    """Finish or undo what a killed writer left, and make the split's folders if they are not there."""
    manifest = split_folder / "manifest"
    manifest.mkdir(parents=True, exist_ok=True)
    for folder in (split_folder, manifest):
        remove_temporary_files(folder)
    for staged_part in manifest.glob(f"{STAGED}*"):
        shard = shard_of_part(staged_part.name.removeprefix(STAGED))
        if _staged(split_folder / shard_name(shard)).exists():
            staged_part.unlink()
        else:
            staged_part.replace(part_path(split_folder, shard))
    for staged_tar in split_folder.glob(f"{STAGED}*"):
        staged_tar.unlink()


def _staged(path: Path) -> Path:
    return path.with_name(STAGED + path.name)
