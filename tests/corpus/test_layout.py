"""A user's mistakes in the sources: told before anything of the corpus is touched."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from selftrain.corpus.ingest import ingest
from selftrain.corpus.layout import check_sources
from selftrain.plumbing.errors import UserError
from tests.conftest import MakeConfig, write_images
from tests.corpus.test_ingest import files


def an_empty_class(photos: Path) -> None:
    for split in ("labeled", "validation", "test"):
        (photos / split / "zebra").mkdir()


def a_class_of_the_test_images_alone(photos: Path) -> None:
    write_images(photos / "test" / "unicorn", 2, 50)


def a_pool_that_is_gone(photos: Path) -> None:
    shutil.rmtree(photos / "pool")


def a_pool_without_images(photos: Path) -> None:
    shutil.rmtree(photos / "pool")
    (photos / "pool").mkdir()
    (photos / "pool" / "notes.txt").write_text("x")


@pytest.mark.parametrize(
    ("mistake", "told"),
    [
        (an_empty_class, "zebra: class folder without images"),
        (a_class_of_the_test_images_alone, "class 'unicorn' is a folder of split 'test', but not a class"),
        (a_pool_that_is_gone, "pool: no such folder"),
        (a_pool_without_images, "pool: no images in it"),
    ],
)
def test_a_mistake_leaves_the_corpus_as_it_is(
    ingest_config: MakeConfig, photos: Path, tmp_path: Path, mistake: Callable[[Path], None], told: str
) -> None:
    corpus, config = tmp_path / "corpus", ingest_config()
    ingest(config, 0, corpus)
    before = files(corpus)
    check_sources(photos, config, 0)
    mistake(photos)
    with pytest.raises(UserError, match=told):
        check_sources(photos, config, 0)
    with pytest.raises(UserError, match=told):
        ingest(config, 0, corpus)
    assert files(corpus) == before


def test_a_class_that_is_too_small_to_cut_from(ingest_config: MakeConfig, photos: Path, tmp_path: Path) -> None:
    config = ingest_config(test={"cut_from": "labeled", "share": 0.1})
    ingest(config, 0, tmp_path / "corpus")
    before = files(tmp_path / "corpus")
    write_images(photos / "labeled" / "one", 1, 60)
    write_images(photos / "validation" / "one", 1, 61)
    for told in (lambda: check_sources(photos, config, 0), lambda: ingest(config, 0, tmp_path / "corpus")):
        with pytest.raises(UserError, match="class 'one' has 1 labeled images, too few to cut test from"):
            told()
    assert files(tmp_path / "corpus") == before
