from pathlib import Path
from typing import Any

import pytest

from selftrain.corpus import shards
from selftrain.corpus.inspect import image_facts
from selftrain.corpus.shards import Shard, ShardWriter, recover
from selftrain.images.reader import ShardReader
from selftrain.plumbing.errors import UserError
from selftrain.tables.manifest import read_manifest
from tests.conftest import image_bytes


def write(split_folder: Path, count: int = 4, per_shard: int = 2) -> None:
    recover(split_folder)
    writer = ShardWriter(split_folder, "unlabeled", per_shard, first_shard=0)
    for number in range(count):
        data = image_bytes(number)
        writer.add(data, image_facts(data, 10**6), None, f"{number}.png")
    writer.close()


def rows(split_folder: Path) -> list[dict[str, Any]]:
    return read_manifest(split_folder, ["key", "shard", "offset", "size", "xxh3", "source"]).to_pylist()


def test_the_same_images_give_the_same_bytes(tmp_path: Path) -> None:
    for name in "ab":
        write(tmp_path / name)
    for path in (tmp_path / "a").rglob("*.*"):
        assert path.read_bytes() == (tmp_path / "b" / path.relative_to(tmp_path / "a")).read_bytes()


@pytest.mark.parametrize("done", ["nothing", "tar staged", "both staged", "tar renamed"])
def test_recover_finishes_or_undoes_a_rewrite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, done: str) -> None:
    split = tmp_path / "unlabeled"
    write(split)
    old = rows(split)
    manifest_rows = read_manifest(
        split, [*old[0], "label", "width", "height", "format", "sha256", "pixels", "dhash", "dhash_mirrored"]
    )
    rewritten = Shard(split, 0)
    with ShardReader(split) as reader:
        row = manifest_rows.to_pylist()[1]
        rewritten.add(row, reader.read(row["shard"], row["offset"], row["size"], row["xxh3"]))

    def die(*args: object) -> None:
        raise KeyboardInterrupt

    if done == "tar staged":
        monkeypatch.setattr(shards, "write_arrow", die)
    replaced: list[Path] = []
    replace = Path.replace

    def counted(path: Path, target: Path) -> Path:
        if path.name.startswith(shards.STAGED):
            if len(replaced) == {"both staged": 0, "tar renamed": 1}.get(done):
                raise KeyboardInterrupt
            replaced.append(path)
        return replace(path, target)

    monkeypatch.setattr(Path, "replace", counted)
    if done != "nothing":
        with pytest.raises(KeyboardInterrupt):
            rewritten.commit()
    monkeypatch.undo()
    recover(split)
    assert [path.name for path in split.rglob("*") if path.name.startswith((".tmp", "staged"))] == []
    expected = old[1:] if done == "tar renamed" else old
    assert [row["source"] for row in rows(split)] == [row["source"] for row in expected]
    with ShardReader(split) as reader:
        for row in rows(split):
            assert reader.read(row["shard"], row["offset"], row["size"], row["xxh3"]) == image_bytes(
                int(row["source"][0])
            )


def test_a_short_or_missing_shard_is_named(tmp_path: Path) -> None:
    write(tmp_path)
    row = rows(tmp_path)[1]
    tar = tmp_path / row["shard"]
    tar.write_bytes(tar.read_bytes()[: row["offset"] + 10])
    with ShardReader(tmp_path) as reader, pytest.raises(UserError, match="shorter than its manifest says"):
        reader.read(row["shard"], row["offset"], row["size"], row["xxh3"])
    tar.write_bytes(b"")
    with ShardReader(tmp_path) as reader, pytest.raises(UserError, match="shard is missing or empty"):
        reader.read(row["shard"], row["offset"], row["size"], row["xxh3"])
    tar.unlink()
    with ShardReader(tmp_path) as reader, pytest.raises(UserError, match="shard is missing or empty"):
        reader.read(row["shard"], row["offset"], row["size"], row["xxh3"])
