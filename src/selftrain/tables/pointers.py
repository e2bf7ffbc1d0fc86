"""Pointers: what a split holds instead of shards that stay where they are, in a store or on a disk.

Beside the manifest part of such a shard lies ``shard-XXXXXXXX.json``: where the shard is, which version of it was
looked at, and what became of its images.
"""

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from selftrain.plumbing.errors import UserError
from selftrain.plumbing.files import write_json
from selftrain.plumbing.stores import Version, is_url
from selftrain.tables.keys import shard_name, shard_of_file


@dataclass(frozen=True)
class Pointer:
    """Where a shard lies, and what was found in it: found = its images + quarantined + listed_twice."""

    location: str
    """A URL, or a path: absolute, or relative to the split's folder."""
    size: int
    tag: str
    found: int
    quarantined: list[list[str]]
    """[source, reason] of each image that cannot be used."""
    listed_twice: int
    ignored: dict[str, int]
    """Members that are no images, by suffix."""

    @property
    def images(self) -> int:
        """Those that can be used."""
        return self.found - len(self.quarantined) - self.listed_twice

    @property
    def version(self) -> Version:
        """Of the shard when it was looked at."""
        return Version(self.size, self.tag)

    def opened_from(self, split_folder: Path | str) -> str:
        """The URL or path to open."""
        return self.location if is_url(self.location) else os.path.join(split_folder, self.location)


def pointer_path(split_folder: Path | str, shard: int | str) -> Path:
    """The pointer of a shard, by its number or its name."""
    name = shard if isinstance(shard, str) else shard_name(shard)
    return Path(split_folder, name).with_suffix(".json")


def write_pointer(split_folder: Path, shard: int, pointer: Pointer) -> None:
    """Write a shard's pointer, whole or not at all."""
    write_json(pointer_path(split_folder, shard), asdict(pointer))


def read_pointer(split_folder: Path | str, shard: int | str) -> Pointer | None:
    """A shard's pointer; None if it has none. Raises UserError for one that is damaged."""
    path = pointer_path(split_folder, shard)
    try:
        return Pointer(**json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError):
        raise UserError(f"{path}: damaged; `selftrain ingest` writes it anew") from None


def all_pointers(split_folder: Path) -> dict[int, Pointer | None]:
    """A split's pointers by shard; None for a damaged one."""
    found: dict[int, Pointer | None] = {}
    for path in sorted(split_folder.glob("shard-*.json")):
        shard = shard_of_file(path.name)
        try:
            found[shard] = read_pointer(split_folder, shard)
        except UserError:
            found[shard] = None
    return found


def as_stored(root: Path, location: str, split_folder: Path) -> str:
    """A location as a pointer keeps it: a path that is relative to ``root`` leads from the split's folder."""
    if is_url(location):
        return location
    if os.path.isabs(location):
        return os.path.normpath(location) if ".." not in Path(location).parts else location
    # As the system follows it: `..` leads out of where a link leads to.
    return os.path.relpath(root.resolve() / location, split_folder.resolve())
