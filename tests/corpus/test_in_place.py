import io
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from email.utils import formatdate
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

from selftrain.corpus.ingest import ingest
from selftrain.history.shards import shard_troubles
from selftrain.images import remote_shard
from selftrain.images.clean_images import CleanImages, in_batches
from selftrain.images.index import load_index
from selftrain.images.loading import ImageLoader
from selftrain.images.reader import read_rows
from selftrain.images.workers import in_order
from selftrain.inspection.media import extract
from selftrain.params.ingest import IngestConfig
from selftrain.plumbing import stores
from selftrain.plumbing.errors import UserError
from selftrain.plumbing.files import read_json
from selftrain.plumbing.hardware import Caches
from selftrain.report.pictures import data_urls
from selftrain.tables.manifest import find_rows, read_manifest
from selftrain.tables.parquet import read_frame
from selftrain.tables.pointers import read_pointer
from tests.conftest import image_bytes, tar_of
from tests.stores import BadLine, bucket, client, s3, use

__all__ = ["s3"]

MakeConfig = Callable[..., IngestConfig]
ROWS = ["source", "size", "width", "height", "format", "xxh3", "sha256", "pixels", "dhash"]


def shard(number: int, images: int = 6, size: tuple[int, int] = (12, 10)) -> bytes:
    return tar_of(
        {f"{number}-{place}.{suffix}": data
         for place in range(images)
         for suffix, data in (("png", image_bytes(number * 1000 + place, size)), ("json", b"{}"))}
    )  # fmt: skip


def in_place(*images: str) -> dict[str, object]:
    return {"unlabeled": {"images": list(images), "in_place": True}}


def table(corpus: Path) -> list[dict[str, object]]:
    return read_manifest(corpus / "unlabeled", ROWS).to_pylist()


def keys(corpus: Path) -> dict[str, int]:
    found = read_manifest(corpus / "unlabeled", ["source", "key"])
    return dict(zip(found["source"].to_pylist(), found["key"].to_pylist(), strict=True))


def bytes_of(corpus: Path) -> dict[int, bytes]:
    return dict(read_rows(corpus / "unlabeled", find_rows(corpus / "unlabeled", keys(corpus).values())))


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(remote_shard, "KEPT", tmp_path / "kept")
    monkeypatch.setattr(stores, "FIRST_PAUSE", 0.02)


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
    before = keys(corpus)
    path = photos / "pool-1.tar"
    times, data = path.stat(), bytearray(path.read_bytes())
    data[data.index(b"IHDR") + 30] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    ingest(config, 0, corpus)
    assert keys(corpus) == before, "size and time are those that were"
    with pytest.raises(UserError, match="pool-1.tar: .*not the one that was ingested; `selftrain ingest --verify`"):
        bytes_of(corpus)
    ingest(config, 0, corpus, verify=True)
    after = keys(corpus)
    assert {source for source, key in after.items() if before[source] != key} == {
        source for source in after if "pool-1" in source
    }
    bytes_of(corpus)
    ingest(config, 0, corpus, verify=True)
    assert keys(corpus) == after


def test_one_shard_named_in_several_ways_is_one_shard(ingest_config: MakeConfig, photos: Path) -> None:
    for number in range(2):
        (photos / f"pool-{number}.tar").write_bytes(shard(number))
    config = ingest_config(**in_place("pool-{0..1}.tar", "./pool-1.tar", "x/../pool-1.tar"))
    (photos / "x").mkdir()
    first = ingest(config, 0, Path("corpus"))["unlabeled"]
    assert (first["images"], first["found"], first["listed_twice"]) == (12, 24, 12)
    before = keys(Path("corpus"))
    assert ingest(config, 0, Path("corpus"))["unlabeled"] == first
    assert keys(Path("corpus")) == before


def test_a_killed_copying_leaves_nothing_where_shards_stay(ingest_config: MakeConfig, photos: Path) -> None:
    (photos / "pool-0.tar").write_bytes(shard(0))
    pool = Path("corpus/unlabeled")
    pool.mkdir(parents=True)
    for name in ("staged-shard-00000000.tar", ".tmp-1-next_shard"):
        (pool / name).write_bytes(b"half")
    ingest(ingest_config(**in_place("pool-0.tar")), 0, Path("corpus"))
    assert sorted(path.name for path in pool.iterdir()) == ["manifest", "next_shard", "shard-00000000.json"]


def test_a_pool_in_a_store_behind_a_bad_line(
    ingest_config: MakeConfig, monkeypatch: pytest.MonkeyPatch, s3: int
) -> None:
    objects = {f"pool/{number}.tar": shard(number, 12, (90, 80)) for number in range(4)}
    bucket(s3, "bad-line", objects)
    corpus = Path("corpus")
    with BadLine(s3, latency=0.01, cut_every=3) as line:
        use(monkeypatch, line.port)
        ingest(ingest_config(**in_place("s3://bad-line/pool/*.tar")), 0, corpus)
        assert keys(corpus).keys() == {
            f"s3://bad-line/pool/{number}.tar::{number}-{place}.png" for number in range(4) for place in range(12)
        }
        index = load_index(corpus / "unlabeled")
        loader = ImageLoader(index)
        batches = in_batches(np.random.default_rng(0).permutation(len(index)), 7)
        found = {}
        for batch, squares in zip(batches, in_order(CleanImages(loader, batches, 32, 1.0), range(7), 2), strict=True):
            found |= {int(index.keys[row]): square.numpy() for row, square in zip(batch, squares, strict=True)}
        assert line.cuts > 3, "the line was not bad"
    of_source, copies = keys(corpus), bytes_of(corpus)
    for number in range(4):
        for place in range(12):
            key = of_source[f"s3://bad-line/pool/{number}.tar::{number}-{place}.png"]
            image = image_bytes(number * 1000 + place, (90, 80))
            assert copies[key] == image
            np.testing.assert_array_equal(found[key], square_of(image))


def square_of(image: bytes) -> np.ndarray:
    from selftrain.images.decode import decode_pixels
    from selftrain.images.transforms import clean

    return clean(decode_pixels(image), 32, 1.0)


def test_what_does_not_answer_is_named(ingest_config: MakeConfig, monkeypatch: pytest.MonkeyPatch, s3: int) -> None:
    bucket(s3, "no-answer", {"a.tar": shard(0)})
    use(monkeypatch, s3)
    ingest(ingest_config(**in_place("s3://no-answer/a.tar")), 0, Path("corpus"))
    # The client tries again by itself too, in each attempt of ours.
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    monkeypatch.setattr("s3fs.S3FileSystem.retries", 1)
    with BadLine(s3, cut_every=1, cut_after=10) as line:
        use(monkeypatch, line.port)
        monkeypatch.setattr(stores, "ATTEMPTS", 2)
        with pytest.raises(UserError, match=r"s3://no-answer/a\.tar: its store did not answer 2 times"):
            bytes_of(Path("corpus"))
    use(monkeypatch, s3)
    with pytest.raises(UserError, match=r"s3://no-answer/b\.tar: no such file in its store"):
        ingest(ingest_config(**in_place("s3://no-answer/b.tar")), 0, Path("corpus"))
    with pytest.raises(UserError, match=r"s3://no-answer/c\*\.tar: names no shard"):
        ingest(ingest_config(**in_place("s3://no-answer/c*.tar")), 0, Path("corpus"))


def test_a_shard_that_changed_is_an_error_and_then_new_keys(
    ingest_config: MakeConfig, monkeypatch: pytest.MonkeyPatch, s3: int, photos: Path
) -> None:
    bucket(s3, "changes", {"a.tar": shard(0), "b.tar": shard(1)})
    (photos / "c.tar").write_bytes(shard(2))
    corpus = Path("corpus")
    with BadLine(s3) as line:
        use(monkeypatch, line.port)
        config = ingest_config(**in_place("s3://changes/{a,b}.tar", "c.tar"))
        ingest(config, 0, corpus)
        before = keys(corpus)
        # The same images in another order: every one is in the place of another.
        with tarfile.open(fileobj=io.BytesIO(shard(1))) as tar:
            members = {member.name: tar.extractfile(member).read() for member in reversed(tar.getmembers())}  # type: ignore[union-attr]
        client(s3).put_object(Bucket="changes", Key="b.tar", Body=tar_of(members))
        with pytest.raises(UserError, match=r"s3://changes/b\.tar: the shard has changed since it was ingested"):
            bytes_of(corpus)
        assert shard_troubles(corpus / "unlabeled", deep=False) == []
        (photos / "c.tar").write_bytes(shard(3))
        assert [trouble.partition("c.tar")[2] for trouble in shard_troubles(corpus / "unlabeled", deep=False)] == [
            " has changed since it was ingested"
        ]
        with pytest.raises(UserError, match=r"c\.tar: the shard has changed since it was ingested"):
            bytes_of(corpus)
        line.asked.clear()
        summary = ingest(config, 0, corpus)
        assert [asked for asked in line.asked if "a.tar" in asked and asked.startswith("GET")] == [], "read again"
        copies = sorted(bytes_of(corpus).values())
    assert (summary["unlabeled"]["images"], summary["unlabeled"]["found"]) == (18, 18)
    after = keys(corpus)
    assert {source: key for source, key in after.items() if "a.tar" in source} == {
        source: key for source, key in before.items() if "a.tar" in source
    }
    others = {key for source, key in after.items() if "a.tar" not in source}
    assert others.isdisjoint(before.values())
    assert copies == sorted(image_bytes(number * 1000 + place) for number in (0, 1, 3) for place in range(6))


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
        assert list(keys(Path("corpus"))) == ["p.tar::a.png", "p.tar::a.jpg"]
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


def test_a_server_without_ranges_can_be_copied_from_and_not_read_in_place(
    ingest_config: MakeConfig, photos: Path, tmp_path: Path
) -> None:
    (tmp_path / "served").mkdir()
    (tmp_path / "served" / "p.tar").write_bytes(shard(0))
    handler = partial(SimpleHTTPRequestHandler, directory="served")
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/p.tar"
        ingest(ingest_config(unlabeled={"images": url}), 0, Path("copied"))
        with pytest.raises(UserError, match=r"p\.tar: its server gives no ranges, only whole files; copy it instead"):
            ingest(ingest_config(**in_place(url)), 0, Path("corpus"))
        server.shutdown()
    assert len(keys(Path("copied"))) == 6


class Moody(SimpleHTTPRequestHandler):
    """A web server that has ranges and times, and no ETag. It answers ``moods`` first."""

    moods: ClassVar[list[int]] = []

    def do_GET(self) -> None:
        path = Path(self.translate_path(self.path))
        if self.moods:
            self.send_error(self.moods.pop(0))
            return
        data = path.read_bytes()
        first, _, last = self.headers.get("Range", "bytes=0-").removeprefix("bytes=").partition("-")
        some = data[int(first) : int(last) + 1 if last else None]
        self.send_response(206 if "Range" in self.headers else 200)
        self.send_header("Content-Length", str(len(some)))
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Range", f"bytes {first}-{int(first) + len(some) - 1}/{len(data)}")
        self.send_header("Last-Modified", formatdate(path.stat().st_mtime, usegmt=True))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(some)

    do_HEAD = do_GET

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def moody(tmp_path: Path) -> Iterator[str]:
    (tmp_path / "served").mkdir()
    (tmp_path / "served" / "p.tar").write_bytes(shard(0))
    Moody.moods.clear()
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Moody, directory="served")) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/p.tar"
        server.shutdown()


def test_a_server_that_fails_is_asked_again_and_no_missing_file(
    ingest_config: MakeConfig, moody: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stores, "FIRST_PAUSE", 0.001)
    Moody.moods += [503, 503, 429]
    ingest(ingest_config(**in_place(moody)), 0, Path("corpus"))
    assert len(keys(Path("corpus"))) == 6
    for mood, said in ((403, "its store does not allow it"), (404, "no such file in its store")):
        Moody.moods[:] = [mood] * 10
        with pytest.raises(UserError, match=said):
            stores.version_of(moody)
    Moody.moods[:] = [500] * 100
    with pytest.raises(UserError, match="did not answer 7 times"):
        stores.version_of(moody)
    with pytest.raises(UserError, match="its server answers 500"):
        ingest(ingest_config(unlabeled={"images": moody}), 0, Path("copied"))


def test_a_server_without_etags_tells_a_change_by_its_time(
    ingest_config: MakeConfig, moody: str, tmp_path: Path
) -> None:
    ingest(ingest_config(**in_place(moody)), 0, Path("corpus"))
    before = keys(Path("corpus"))
    changed = tmp_path / "served" / "p.tar"
    size = changed.stat().st_size
    with tarfile.open(changed) as tar:
        members = {member.name: tar.extractfile(member).read() for member in reversed(tar.getmembers())}  # type: ignore[union-attr]
    changed.write_bytes(tar_of(members))
    assert changed.stat().st_size == size
    os.utime(changed, (time.time() + 60,) * 2)
    ingest(ingest_config(**in_place(moody)), 0, Path("corpus"))
    assert set(before.values()).isdisjoint(keys(Path("corpus")).values())


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
        found = keys(Path("corpus"))
        assert given.isdisjoint(found.values()), "a key is never given twice"
        given |= set(found.values())
        assert sorted(bytes_of(Path("corpus")).values()) == sorted(image_bytes(place) for place in range(6))
        copied = len(list(Path("corpus/unlabeled").glob("*.tar")))
        assert copied == (0 if "in_place" in how["unlabeled"] else 2)  # type: ignore[operator]


def test_what_is_kept_of_a_store_is_bounded_and_never_wrong(
    ingest_config: MakeConfig, monkeypatch: pytest.MonkeyPatch, s3: int
) -> None:
    objects = {f"{number}.tar": shard(number, 4, (100, 100)) for number in range(8)}
    bucket(s3, "kept", objects)
    with BadLine(s3) as line:
        use(monkeypatch, line.port)
        ingest(ingest_config(**in_place("s3://kept/*.tar")), 0, Path("corpus"))
        index = load_index(Path("corpus/unlabeled"))
        expected = [image.tobytes() for image in map(ImageLoader(index).image, range(32))]
        asked = len(line.asked)
        assert [image.tobytes() for image in map(ImageLoader(index).image, range(32))] == expected
        assert len(line.asked) == asked, "what is kept is asked for again"
        for path in remote_shard.KEPT.iterdir():
            path.write_bytes(b"damaged" * 1000)
        for limit in (250_000, 250_000, 10_000):  # two shards, and less than one
            few = ImageLoader(index, Caches(0, limit))
            assert [few.image(row).tobytes() for row in range(32)] == expected
            taken = sum(path.stat().st_blocks * 512 for path in remote_shard.KEPT.iterdir())
            assert taken < limit + limit // 8 + len(objects["0.tar"]), taken
    assert len(line.asked) > asked + 16


def test_near_images_are_fetched_as_one_range(
    ingest_config: MakeConfig, monkeypatch: pytest.MonkeyPatch, s3: int
) -> None:
    bucket(s3, "ranges", {"a.tar": shard(0, 200, (40, 40))})
    with BadLine(s3) as line:
        use(monkeypatch, line.port)
        ingest(ingest_config(**in_place("s3://ranges/a.tar")), 0, Path("corpus"))
        index = load_index(Path("corpus/unlabeled"))
        batches = in_batches(np.arange(200), 50)
        line.asked.clear()
        images = CleanImages(ImageLoader(index), batches, 40, 1.0)
        found = np.concatenate([images[batch].numpy() for batch in range(4)])
        gets = [asked for asked in line.asked if asked.startswith("GET")]
    assert len(gets) <= 4, gets
    assert len(found) == 200


def test_the_app_and_the_report_fetch_what_they_show(
    ingest_config: MakeConfig, monkeypatch: pytest.MonkeyPatch, s3: int, tmp_path: Path
) -> None:
    bucket(s3, "shown", {f"{number}.tar": shard(number, 40, (200, 200)) for number in range(3)})
    with BadLine(s3) as line:
        use(monkeypatch, line.port)
        ingest(ingest_config(**in_place("s3://shown/*.tar")), 0, Path("corpus"))
        split, all_keys = Path("corpus/unlabeled"), sorted(keys(Path("corpus")).values())
        shown = [all_keys[0], all_keys[50], all_keys[119]]
        line.passed = 0
        paths = extract(split, set(shown), tmp_path / "media")
        urls = data_urls(split, shown)
        sizes = {key: path.stat().st_size for key, path in paths.items()}
        assert line.passed < sum(sizes.values()) + 20_000, "more than what is shown"
    by_key = {key: image_bytes(key // 10**6 % 10**8 * 1000 + key % 10**6, (200, 200)) for key in shown}
    assert {key: path.read_bytes() for key, path in paths.items()} == by_key
    assert urls.keys() == by_key.keys()


def test_the_ranges_that_come_cover_what_was_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    import fsspec

    data = np.random.default_rng(0).bytes(5000)
    fsspec.filesystem("memory").pipe("/ranges.bin", data)
    monkeypatch.setattr(stores, "NEAR", 40)
    monkeypatch.setattr(stores, "LARGEST", 300)
    rng = np.random.default_rng(1)
    for _ in range(50):
        starts = rng.integers(0, 4000, 8)
        ranges = [
            (int(start), int(start + length)) for start, length in zip(starts, rng.integers(1, 900, 8), strict=True)
        ]
        have = dict.fromkeys(range(5000), None)
        for start, found in stores.fetch("memory://ranges.bin", ranges):
            assert len(found) <= 300
            have.update({start + place: byte for place, byte in enumerate(found)})  # type: ignore[misc]
        for start, end in ranges:
            assert bytes(have[place] for place in range(start, end)) == data[start:end]  # type: ignore[misc]
    with pytest.raises(UserError, match="did not answer"):
        monkeypatch.setattr(stores, "ATTEMPTS", 1)
        stores.fetch("memory://ranges.bin", [(4990, 5001)])
    with stores.stream("memory://ranges.bin") as file:
        file.seek(17)
        assert file.read(1000) == data[17:1017]
        assert file.seek(-1, io.SEEK_END) == 4999
        assert file.read() == data[-1:]


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
    for pause in (0.0, 0.05, 0.1):
        with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.DEVNULL) as process:
            until = time.monotonic() + 60
            while time.monotonic() < until and not list(Path("killed/unlabeled").glob("shard-*.json")):
                time.sleep(0.01)
            time.sleep(pause)
            process.send_signal(signal.SIGKILL)
    first = {path.name: path.stat().st_mtime_ns for path in Path("killed/unlabeled").glob("shard-*.json")}
    assert first
    ingest(config, 0, Path("killed"))
    again = {path.name: path.stat().st_mtime_ns for path in Path("killed/unlabeled").glob("shard-*.json")}
    assert first.items() <= again.items(), "a shard that was done was read again"
    assert table(Path("killed")) != []
    assert sorted(map(str, table(Path("killed")))) == sorted(map(str, table(Path("whole"))))
    shutil.rmtree("killed")
