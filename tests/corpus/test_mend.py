"""Damage to a corpus: found and mended by ingest, noticed by whoever reads it."""

import os
import random
from pathlib import Path
from typing import Any

import pytest

from selftrain.corpus.ingest import ingest
from selftrain.images.index import load_index
from selftrain.images.loading import ImageLoader
from selftrain.plumbing.errors import UserError
from selftrain.tables.manifest import part_path, read_manifest


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture
def corpus(ingest_config: Any, tmp_path: Path) -> Path:
    ingest(ingest_config(images_per_shard=4), 0, tmp_path / "corpus")
    return tmp_path / "corpus"


@pytest.mark.parametrize("damage", ["bit", "frame", "short", "lost", "no part", "bad part", "neither"])
def test_damage_is_mended_with_the_same_keys_and_bytes(
    ingest_config: Any, corpus: Path, damage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = tree(corpus)
    split = corpus / "unlabeled"
    tar, part = split / "shard-00000000.tar", part_path(split, 0)
    data = bytearray(tar.read_bytes())
    if damage in ("bit", "neither"):
        data[600] ^= 4
    if damage == "frame":
        data[3] ^= 1  # the first member's name
    tar.write_bytes(data[:700] if damage == "short" else data)
    if damage == "lost":
        tar.unlink()
    if damage == "no part":
        part.unlink()
    if damage in ("bad part", "neither"):
        changed = bytearray(part.read_bytes())
        changed[60] ^= 1
        part.write_bytes(changed)
    if damage == "neither":
        tar.write_bytes(bytes(data[:700]))
        with pytest.raises(UserError, match=r"part-00000000.parquet: damaged, and cannot be made from .*dvc checkout"):
            ingest(ingest_config(images_per_shard=4), 0, corpus)
        return
    ingest(ingest_config(images_per_shard=4), 0, corpus)
    assert tree(corpus) == before
    assert ("written anew" if damage in ("bit", "frame", "short", "lost") else "made anew") in capsys.readouterr().out


def test_a_flipped_bit_is_never_read(corpus: Path) -> None:
    split = corpus / "unlabeled"
    index = load_index(split)
    tar = split / index.shards[0]
    whole = tar.read_bytes()
    draw = random.Random(0)
    for _ in range(100):
        row = draw.randrange(int((index.shard == 0).sum()))
        data = bytearray(whole)
        data[int(index.offset[row]) + draw.randrange(int(index.size[row]))] ^= 1 << draw.randrange(8)
        tar.write_bytes(data)
        with pytest.raises(UserError, match=rf"{tar.name}: the image at byte {index.offset[row]} is not the one that"):
            ImageLoader(index).image(row)


def test_what_has_not_changed_is_read_again_only_if_asked(
    ingest_config: Any, corpus: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tar = corpus / "unlabeled" / "shard-00000000.tar"
    before, times = tree(corpus), tar.stat()
    data = bytearray(tar.read_bytes())
    data[600] ^= 4
    tar.write_bytes(data)
    os.utime(tar, ns=(times.st_atime_ns, times.st_mtime_ns))
    ingest(ingest_config(images_per_shard=4), 0, corpus)
    assert "written anew" not in capsys.readouterr().out
    ingest(ingest_config(images_per_shard=4), 0, corpus, verify=True)
    assert "shard-00000000.tar: was damaged; written anew, 1 images from their sources" in capsys.readouterr().out
    assert tree(corpus) == before


def test_a_lost_image_whose_source_is_gone_is_removed(ingest_config: Any, photos: Path, corpus: Path) -> None:
    split = corpus / "unlabeled"
    rows = read_manifest(split, ["key", "offset", "source"]).to_pylist()
    tar = split / "shard-00000000.tar"
    data = bytearray(tar.read_bytes())
    data[rows[0]["offset"] + 3] ^= 1
    tar.write_bytes(data)
    (photos / rows[0]["source"]).unlink()
    ingest(ingest_config(images_per_shard=4), 0, corpus)
    assert read_manifest(split, ["key"])["key"].to_pylist() == [row["key"] for row in rows[1:]]
