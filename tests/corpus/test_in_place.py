import io
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import pytest

from selftrain.corpus.ingest import ingest
from selftrain.images.index import load_index
from selftrain.images.loading import ImageLoader
from selftrain.plumbing.errors import UserError
from selftrain.plumbing.files import read_json
from selftrain.tables.parquet import read_frame
from selftrain.tables.pointers import read_pointer
from tests.conftest import MakeConfig, image_bytes, tar_of
from tests.corpus.manifests import keys_of
from tests.corpus.pools_in_place import bytes_of, in_place, own_folder, shard, table

__all__ = ["own_folder"]


def test_the_same_images_as_if_copied_and_no_byte_of_them(ingest_config: MakeConfig, photos: Path) -> None:
    for number in range(3):
        (photos / f"pool-{number}.tar").write_bytes(shard(number))
    copied, there = Path("copied"), Path("there")
    summary = ingest(ingest_config(unlabeled={"images": "pool-{0..2}.tar"}), 0, copied)
    assert ingest(ingest_config(**in_place("pool-{0..2}.tar")), 0, there) == summary | {
        "unlabeled": summary["unlabeled"] | {"digest": read_json(there / "summary.json", "")["unlabeled"]["digest"]}
    }
    assert table(there) == table(copied)
    assert sorted(bytes_of(there).values()) == sorted(bytes_of(copied).values())
    assert not list((there / "unlabeled").glob("*.tar"))
    # Where a pool lies in the project, its pointer is good in any clone.
    pointer = read_pointer(there / "unlabeled", 1)
    assert pointer is not None
    assert pointer.location == os.path.relpath(photos / "pool-1.tar", there / "unlabeled")
    assert (there / "unlabeled" / pointer.location).resolve() == photos / "pool-1.tar"


def test_a_byte_that_changed_without_a_trace_is_found_by_verify(ingest_config: MakeConfig, photos: Path) -> None:
    for number in range(2):
        (photos / f"pool-{number}.tar").write_bytes(shard(number))
    corpus, config = Path("corpus"), ingest_config(**in_place("pool-{0..1}.tar"))
    ingest(config, 0, corpus)
    before = keys_of(corpus)
    path = photos / "pool-1.tar"
    times, data = path.stat(), bytearray(path.read_bytes())
    data[data.index(b"IHDR") + 30] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    ingest(config, 0, corpus)
    assert keys_of(corpus) == before, "size and time are those that were"
    with pytest.raises(UserError, match="pool-1.tar: .*not the one that was ingested; `selftrain ingest --verify`"):
        bytes_of(corpus)
    ingest(config, 0, corpus, verify=True)
    after = keys_of(corpus)
    assert {source for source, key in after.items() if before[source] != key} == {
        source for source in after if "pool-1" in source
    }
    bytes_of(corpus)
    ingest(config, 0, corpus, verify=True)
    assert keys_of(corpus) == after


def test_one_shard_named_in_several_ways_is_one_shard(ingest_config: MakeConfig, photos: Path) -> None:
    for number in range(2):
        (photos / f"pool-{number}.tar").write_bytes(shard(number))
    config = ingest_config(**in_place("pool-{0..1}.tar", "./pool-1.tar", "x/../pool-1.tar"))
    (photos / "x").mkdir()
    first = ingest(config, 0, Path("corpus"))["unlabeled"]
    assert (first["images"], first["found"], first["listed_twice"]) == (12, 24, 12)
    before = keys_of(Path("corpus"))
    assert ingest(config, 0, Path("corpus"))["unlabeled"] == first
    assert keys_of(Path("corpus")) == before


def test_a_killed_copying_leaves_nothing_where_shards_stay(ingest_config: MakeConfig, photos: Path) -> None:
    (photos / "pool-0.tar").write_bytes(shard(0))
    pool = Path("corpus/unlabeled")
    pool.mkdir(parents=True)
    for name in ("staged-shard-00000000.tar", ".tmp-1-next_shard"):
        (pool / name).write_bytes(b"half")
    ingest(ingest_config(**in_place("pool-0.tar")), 0, Path("corpus"))
    assert sorted(path.name for path in pool.iterdir()) == ["manifest", "next_shard", "shard-00000000.json"]


def test_images_that_cannot_be_used_are_counted_and_remembered(ingest_config: MakeConfig, photos: Path) -> None:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        for name, data in {
            "a.png": image_bytes(1),
            "b.png": b"no image",
            "c.txt": b"x",
            "a.jpg": image_bytes(3),
        }.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
        link = tarfile.TarInfo("d.png")
        link.type, link.linkname = tarfile.SYMTYPE, "a.png"
        tar.addfile(link)
        again = tarfile.TarInfo("a.png")
        again.size = len(image_bytes(4))
        tar.addfile(again, io.BytesIO(image_bytes(4)))
    (photos / "p.tar").write_bytes(file.getvalue())
    (photos / "none.tar").write_bytes(tar_of({"e.png": b"", "f.txt": b""}))
    for _ in range(2):
        config = ingest_config(**in_place("p.tar", "none.tar", "none.tar"), max_quarantined=0.9)
        of_pool = ingest(config, 0, Path("corpus"))["unlabeled"]
        assert list(keys_of(Path("corpus"))) == ["p.tar::a.png", "p.tar::a.jpg"]
        quarantine = read_frame(Path("corpus/quarantine.parquet"), ["source", "reason"]).rows()
        assert [(source, reason[:12]) for source, reason in quarantine] == [
            ("p.tar::b.png", "not an image"),
            ("p.tar::d.png", "is a link, o"),
            ("none.tar::e.png", "empty file"),
        ]
        counts = [of_pool[name] for name in ("found", "images", "quarantined", "listed_twice")]
        assert counts == [7, 2, 3, 2], "a.png comes twice, and so does none.tar"
        assert of_pool["no_images"] == {".txt": 2}


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("p.tar.gz", "is compressed, so it cannot be read in place"),
        ("https://127.0.0.1:1/p.tar?X-Amz-Signature=abc", r"Signature=\*\*\*: has a password in its address"),
        ("pickle://x/p.tar", "'pickle' is not read"),
        ("away.tar", "no such file"),
    ],
)
def test_what_cannot_stay_in_place(ingest_config: MakeConfig, path: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        ingest(ingest_config(**in_place(path)), 0, Path("corpus"))


def test_a_shard_that_is_cut_while_it_is_read_is_an_error_and_no_crash(ingest_config: MakeConfig, photos: Path) -> None:
    (photos / "p.tar").write_bytes(shard(0))
    ingest(ingest_config(**in_place("p.tar")), 0, Path("corpus"))
    index = load_index(Path("corpus/unlabeled"))
    loader = ImageLoader(index)
    loader.square(0, 8, 1.0)
    os.truncate(photos / "p.tar", 600)
    with pytest.raises(UserError, match="p.tar"):
        loader.square(5, 8, 1.0)


def test_a_corpus_behind_a_link_finds_its_shards(ingest_config: MakeConfig, photos: Path, tmp_path: Path) -> None:
    (photos / "p.tar").write_bytes(shard(0))
    (tmp_path / "big" / "deeper" / "data").mkdir(parents=True)
    (tmp_path / "data").symlink_to(tmp_path / "big" / "deeper" / "data")
    ingest(ingest_config(**in_place("p.tar")), 0, Path("data/corpus"))
    assert sorted(bytes_of(Path("data/corpus")).values()) == sorted(image_bytes(place) for place in range(6))


def test_only_a_pool_of_shards_can_stay(ingest_config: MakeConfig) -> None:
    with pytest.raises(ValueError, match="'pool' is a folder"):
        ingest_config(**in_place("pool"))
    with pytest.raises(ValueError, match="only `unlabeled` can stay in place"):
        ingest_config(labeled={"images": "a.tar", "in_place": True})
    with pytest.raises(ValueError, match="`in_place` is of `images`"):
        ingest_config(unlabeled={"cut_from": "labeled", "share": 0.5, "in_place": True})


def test_from_copied_to_in_place_and_back(ingest_config: MakeConfig, photos: Path) -> None:
    (photos / "p.tar").write_bytes(shard(0))
    given = set[int]()
    for how in (in_place("p.tar"), {"unlabeled": {"images": "p.tar"}}) * 2:
        of_pool = ingest(ingest_config(**how), 0, Path("corpus"))["unlabeled"]
        assert of_pool["images"] == 6
        found = keys_of(Path("corpus"))
        assert given.isdisjoint(found.values()), "a key is never given twice"
        given |= set(found.values())
        assert sorted(bytes_of(Path("corpus")).values()) == sorted(image_bytes(place) for place in range(6))
        copied = len(list(Path("corpus/unlabeled").glob("*.tar")))
        assert copied == (0 if "in_place" in how["unlabeled"] else 2)  # type: ignore[operator]


@pytest.mark.skipif(sys.platform != "linux", reason="asks /proc")
def test_killed_while_it_looks_and_run_again(ingest_config: MakeConfig, photos: Path) -> None:
    for number in range(6):
        (photos / f"{number}.tar").write_bytes(shard(number, 60, (200, 150)))
    config = ingest_config(**in_place("{0..5}.tar"))
    ingest(config, 0, Path("whole"))
    script = f"""
import json
from pathlib import Path
from selftrain.corpus.ingest import ingest
from selftrain.params.ingest import IngestConfig
ingest(IngestConfig.model_validate(json.loads({config.model_dump_json()!r})), 0, Path("killed"))
"""
    for done in (1, 2, 3):  # each is killed when it has read a shard of its own
        with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.DEVNULL) as process:
            until = time.monotonic() + 120
            while time.monotonic() < until and process.poll() is None:
                if len(list(Path("killed/unlabeled").glob("shard-*.json"))) >= done:
                    break
                time.sleep(0.005)
            process.send_signal(signal.SIGKILL)
    first = {path.name: path.stat().st_mtime_ns for path in Path("killed/unlabeled").glob("shard-*.json")}
    assert len(first) >= 3
    ingest(config, 0, Path("killed"))
    again = {path.name: path.stat().st_mtime_ns for path in Path("killed/unlabeled").glob("shard-*.json")}
    assert first.items() <= again.items(), "a shard that was done was read again"
    assert table(Path("killed")) != []
    assert sorted(map(str, table(Path("killed")))) == sorted(map(str, table(Path("whole"))))
    shutil.rmtree("killed")
