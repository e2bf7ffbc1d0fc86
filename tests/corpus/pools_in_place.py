"""Pools whose shards stay where they are."""

from pathlib import Path

import pytest

from selftrain.images import remote_shard
from selftrain.images.reader import read_rows
from selftrain.plumbing import stores
from selftrain.tables.manifest import find_rows, read_manifest
from tests.conftest import image_bytes, tar_of
from tests.corpus.manifests import keys_of

ROWS = ["source", "size", "width", "height", "format", "xxh3", "sha256", "pixels", "dhash"]


def shard(number: int, images: int = 6, size: tuple[int, int] = (12, 10)) -> bytes:
    """A shard of PNG images, each with a JSON file beside it."""
    return tar_of(
        {f"{number}-{place}.{suffix}": data
         for place in range(images)
         for suffix, data in (("png", image_bytes(number * 1000 + place, size)), ("json", b"{}"))}
    )  # fmt: skip


def in_place(*images: str) -> dict[str, object]:
    """Parameters of `ingest` for a pool that stays."""
    return {"unlabeled": {"images": list(images), "in_place": True}}


def table(corpus: Path) -> list[dict[str, object]]:
    """What the manifest says of each image of the pool, but its key."""
    return read_manifest(corpus / "unlabeled", ROWS).to_pylist()


def bytes_of(corpus: Path) -> dict[int, bytes]:
    """The bytes of each image of the pool, by its key."""
    return dict(read_rows(corpus / "unlabeled", find_rows(corpus / "unlabeled", keys_of(corpus).values())))


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run in a folder of its own, with what is kept of stores in it, and short pauses."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(remote_shard, "KEPT", tmp_path / "kept")
    monkeypatch.setattr(stores, "FIRST_PAUSE", 0.02)
