import io
import tarfile
from pathlib import Path

import numpy as np
import pytest

from selftrain.corpus.ingest import ingest
from selftrain.history.shards import shard_troubles
from selftrain.images import remote_shard
from selftrain.images.clean_images import CleanImages, in_batches
from selftrain.images.index import load_index
from selftrain.images.loading import ImageLoader
from selftrain.images.workers import in_order
from selftrain.inspection.media import extract
from selftrain.plumbing import stores
from selftrain.plumbing.errors import UserError
from selftrain.plumbing.hardware import Caches
from selftrain.report.pictures import data_urls
from tests.conftest import MakeConfig, image_bytes, tar_of
from tests.corpus.manifests import keys_of
from tests.corpus.pools_in_place import bytes_of, in_place, own_folder, shard
from tests.stores import BadLine, bucket, client, s3, use

__all__ = ["own_folder", "s3"]


def test_a_pool_in_a_store_behind_a_bad_line(
    ingest_config: MakeConfig, monkeypatch: pytest.MonkeyPatch, s3: int
) -> None:
    objects = {f"pool/{number}.tar": shard(number, 12, (90, 80)) for number in range(4)}
    bucket(s3, "bad-line", objects)
    corpus = Path("corpus")
    with BadLine(s3, latency=0.01, cut_every=3) as line:
        use(monkeypatch, line.port)
        ingest(ingest_config(**in_place("s3://bad-line/pool/*.tar")), 0, corpus)
        assert keys_of(corpus).keys() == {
            f"s3://bad-line/pool/{number}.tar::{number}-{place}.png" for number in range(4) for place in range(12)
        }
        index = load_index(corpus / "unlabeled")
        loader = ImageLoader(index)
        batches = in_batches(np.random.default_rng(0).permutation(len(index)), 7)
        found = {}
        for batch, squares in zip(batches, in_order(CleanImages(loader, batches, 32, 1.0), range(7), 2), strict=True):
            found |= {int(index.keys[row]): square.numpy() for row, square in zip(batch, squares, strict=True)}
        assert line.cuts > 3, "the line was not bad"
    of_source, copies = keys_of(corpus), bytes_of(corpus)
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
        before = keys_of(corpus)
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
    after = keys_of(corpus)
    assert {source: key for source, key in after.items() if "a.tar" in source} == {
        source: key for source, key in before.items() if "a.tar" in source
    }
    others = {key for source, key in after.items() if "a.tar" not in source}
    assert others.isdisjoint(before.values())
    assert copies == sorted(image_bytes(number * 1000 + place) for number in (0, 1, 3) for place in range(6))


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
        split, all_keys = Path("corpus/unlabeled"), sorted(keys_of(Path("corpus")).values())
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
