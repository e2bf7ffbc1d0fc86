"""Kept pixels are those that would be decoded, whatever happened to the files that keep them."""

import os
import shutil
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from selftrain.corpus.ingest import ingest
from selftrain.images import pixel_cache
from selftrain.images.index import load_index, load_splits
from selftrain.images.loading import ImageLoader
from selftrain.params.ingest import IngestConfig
from selftrain.plumbing.hardware import Caches
from tests.conftest import image_bytes

PLENTY = 2**30


@pytest.fixture
def corpus(ingest_config: Callable[..., IngestConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    ingest(ingest_config(), 0, tmp_path / "corpus")
    monkeypatch.setattr(pixel_cache, "FOLDER", tmp_path / "pixels")
    return tmp_path / "corpus"


def squares(loader: ImageLoader) -> list[list[object]]:
    return [loader.square(row, 7, 0.9).tolist() for row in range(len(loader.index))]


def squares_of_pool(corpus: Path, folder: Path) -> list[list[object]]:
    pixel_cache.FOLDER = folder
    return squares(ImageLoader(load_index(corpus / "unlabeled"), Caches(PLENTY)))


def images(loader: ImageLoader) -> list[list[object]]:
    return [loader.image(row).tolist() for row in range(len(loader.index))]


@pytest.mark.parametrize("seen", [squares, images])
def test_kept_pixels_are_the_decoded_ones(corpus: Path, seen: Callable[[ImageLoader], list[list[object]]]) -> None:
    for index in (load_index(corpus / "unlabeled"), load_splits(corpus, ["labeled", "test"])):
        expected = seen(ImageLoader(index))
        assert seen(ImageLoader(index, Caches(PLENTY))) == expected
        kept = ImageLoader(index, Caches(PLENTY))
        shards = {path: path.read_bytes() for path in corpus.rglob("*.tar")}
        for path in shards:
            path.write_bytes(b"")
        assert seen(kept) == expected, "nothing is read from the corpus"
        for path, content in shards.items():
            path.write_bytes(content)


def test_an_index_of_some_images_finds_them_in_the_same_place(corpus: Path) -> None:
    index = load_index(corpus / "unlabeled")
    expected = squares(ImageLoader(index, Caches(PLENTY)))
    some = np.array([7, 2, 5])
    assert squares(ImageLoader(index.take(some), Caches(PLENTY))) == [expected[row] for row in some]
    assert len(list(pixel_cache.FOLDER.iterdir())) == 1


def test_damaged_pixels_are_made_again(corpus: Path) -> None:
    index = load_index(corpus / "unlabeled")
    expected = squares(ImageLoader(index, Caches(PLENTY)))
    files = sorted(pixel_cache.FOLDER.rglob("*.u8"))
    assert len(files) == 2, "one a shard"
    whole = [file.read_bytes() for file in files]
    for place in (0, 9, 8 + 7 * 7 * 3, len(whole[0]) - 1):
        damaged = bytearray(whole[0])
        damaged[place] ^= 1
        files[0].write_bytes(damaged)
        assert squares(ImageLoader(index, Caches(PLENTY))) == expected
        assert files[0].read_bytes() == whole[0]
    for length in (0, 5, 8, 100):
        files[0].write_bytes(whole[0][:length])
        assert squares(ImageLoader(index, Caches(PLENTY))) == expected
        assert files[0].read_bytes() == whole[0]


def test_other_images_under_the_same_keys_are_not_confused(
    corpus: Path, ingest_config: Callable[..., IngestConfig], photos: Path
) -> None:
    index = load_index(corpus / "unlabeled")
    before = squares(ImageLoader(index, Caches(PLENTY)))
    shutil.rmtree(corpus)
    pool = sorted((photos / "pool").iterdir())
    contents = [path.read_bytes() for path in pool]
    for path, content in zip(pool, contents[1:] + contents[:1], strict=True):
        path.write_bytes(content)
    ingest(ingest_config(), 0, corpus)
    again = load_index(corpus / "unlabeled")
    assert again.keys.tolist() == index.keys.tolist()
    assert squares(ImageLoader(again, Caches(PLENTY))) == squares(ImageLoader(again))
    assert squares(ImageLoader(again, Caches(PLENTY))) == before[1:] + before[:1]


def test_processes_share_what_they_keep(corpus: Path) -> None:
    index = load_index(corpus / "unlabeled")
    expected = squares(ImageLoader(index))
    with ProcessPoolExecutor(4) as processes:
        found = list(processes.map(squares_of_pool, [corpus] * 8, [pixel_cache.FOLDER] * 8))
    assert found == [expected] * 8
    assert squares(ImageLoader(index, Caches(PLENTY))) == expected


def test_no_more_is_kept_than_allowed(corpus: Path) -> None:
    index = load_index(corpus / "unlabeled")
    needed = (3 * 12 + len(index)) * (8 + 7 * 7 * 3)  # those of the other splits may come too
    expected = squares(ImageLoader(index))
    assert squares(ImageLoader(index, Caches(needed - 1))) == expected
    assert not pixel_cache.FOLDER.exists()
    assert squares(ImageLoader(index, Caches(needed))) == expected
    assert len(list(pixel_cache.FOLDER.rglob("*.u8"))) == 2


def test_what_was_used_longest_ago_goes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pixel_cache, "FOLDER", tmp_path / "pixels")
    for age, name in enumerate(("new", "middle", "old")):
        file = pixel_cache.FOLDER / name / "unlabeled" / "00000000.u8"
        file.parent.mkdir(parents=True)
        file.write_bytes(b"x" * 8192)
        os.utime(pixel_cache.FOLDER / name, (1000 - age, 1000 - age))
    assert pixel_cache.make_room(pixel_cache.FOLDER / "one more", 8192, 3 * 8192)
    assert {path.name for path in pixel_cache.FOLDER.iterdir()} == {"one more", "new", "middle"}
    assert not pixel_cache.make_room(pixel_cache.FOLDER / "too much", 4 * 8192, 3 * 8192)
    assert {path.name for path in pixel_cache.FOLDER.iterdir()} == {"one more", "new", "middle"}


def test_a_process_that_still_writes_holds_no_hidden_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pixel_cache, "FOLDER", tmp_path / "pixels")
    file = pixel_cache.FOLDER / "another's" / "unlabeled" / "00000000.u8"
    file.parent.mkdir(parents=True)
    with file.open("wb") as writer:
        writer.write(b"x" * 8192)
        writer.flush()
        assert pixel_cache.make_room(pixel_cache.FOLDER / "one more", 8192, 8192)
        assert file.stat().st_blocks == 0
        writer.write(b"y" * 4096)
        writer.flush()
        assert os.fstat(writer.fileno()).st_nlink == 1
        assert 0 < file.stat().st_blocks * 512 <= 8192, "it is counted the next time"


def test_a_disk_that_takes_no_more_is_said_once(
    corpus: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    index = load_index(corpus / "unlabeled")
    expected = squares(ImageLoader(index))

    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "pwritev", full)
    assert squares(ImageLoader(index, Caches(PLENTY))) == expected
    assert capsys.readouterr().out.count("No space left on device") == 1


def test_a_pool_of_small_and_large_images_is_counted_whole(
    photos: Path, ingest_config: Callable[..., IngestConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first shard has small images, the second large ones."""
    monkeypatch.setattr(pixel_cache, "FOLDER", tmp_path / "pixels")
    for path in sorted((photos / "pool").iterdir())[5:]:
        path.write_bytes(image_bytes(1, (300, 200)))
    ingest(ingest_config(), 0, tmp_path / "corpus")
    index = load_index(tmp_path / "corpus" / "unlabeled")
    needed = (36 + 5) * (8 + 12 * 10 * 3) + 4 * (8 + 300 * 200 * 3)
    for limit, kept in ((needed - 1, False), (needed, True)):
        loader = ImageLoader(index, Caches(limit))
        assert loader.image(0).shape == (10, 12, 3)
        assert loader.image(8).shape == (200, 300, 3)
        assert bool(list(pixel_cache.FOLDER.rglob("*.u8"))) == kept


def test_a_place_that_may_not_be_used_costs_decodings(corpus: Path, capsys: pytest.CaptureFixture[str]) -> None:
    index = load_index(corpus / "unlabeled")
    expected = squares(ImageLoader(index))
    assert squares(ImageLoader(index, Caches(PLENTY))) == expected
    (folder,) = pixel_cache.FOLDER.iterdir()
    shutil.rmtree(folder)
    (folder / "unlabeled").mkdir(parents=True)
    (folder / "unlabeled" / "00000000.u8").mkdir()
    assert squares(ImageLoader(index, Caches(PLENTY))) == expected
    assert capsys.readouterr().out.count("images are decoded each time") == 1
    shutil.rmtree(pixel_cache.FOLDER)
    pixel_cache.FOLDER.write_text("a file")
    assert squares(ImageLoader(index, Caches(PLENTY))) == expected
