import errno
import os
import signal
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from selftrain.corpus import examine
from selftrain.corpus.examine import Examiner, examined
from selftrain.corpus.source_image import SourceImage
from selftrain.plumbing.errors import UserError
from selftrain.plumbing.process_engine import Processes
from tests.conftest import image_bytes

EXAMINER = Examiner(set(), set(), 10**6)


def read(path: Path) -> bytes:
    return path.read_bytes()


def die() -> bytes:
    os.kill(os.getpid(), signal.SIGKILL)
    return b""


@pytest.fixture(autouse=True)
def two_processes_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(examine, "ALONE", 0.0)


def test_processes_find_what_one_does_in_its_order() -> None:
    data = [image_bytes(number) if number % 7 else b"broken" for number in range(150)]
    images = [SourceImage(f"{number}.png", None, partial(bytes, content)) for number, content in enumerate(data)]
    images[20] = SourceImage("20.png", None, bytes, problem="is in no class")
    found = list(examined(images, EXAMINER, Processes(2)))
    assert [image for image, _ in found] == images
    assert [seen for _, seen in found] == [EXAMINER.examine(image) for image in images]
    assert sum(seen.facts is not None for _, seen in found) > 100


def only_seen_by(process: int) -> bytes:
    if os.getpid() != process:
        raise FileNotFoundError(errno.ENOENT, "No such file or directory")
    return image_bytes(3)


def test_what_a_worker_does_not_see_is_looked_at_by_who_has_seen_its_name() -> None:
    """A node of a cluster may lack a folder, and images must not count as gone."""
    images = [SourceImage(f"{number}.png", None, partial(only_seen_by, os.getpid())) for number in range(40)]
    assert all(seen.facts is not None for _, seen in examined(images, EXAMINER, Processes(2)))


def test_a_process_that_dies_is_told_in_a_line() -> None:
    images = [SourceImage(f"{number}.png", None, partial(bytes, image_bytes(number))) for number in range(40)]
    images.insert(30, SourceImage("fatal.png", None, die))
    with pytest.raises(
        UserError,
        match=r"^images from \d+.png to \d+.png: a process that worked on it died; .* or set `ingest.max_pixels` lower",
    ):
        list(examined(images, EXAMINER, Processes(2)))


def test_one_that_died_before_the_next_images_were_given_is_told_too() -> None:
    def slowly() -> Iterator[SourceImage]:
        yield SourceImage("0.png", None, partial(bytes, image_bytes(0)))
        yield SourceImage("fatal.png", None, die)
        for number in range(1, 200):
            time.sleep(0.01)
            yield SourceImage(f"{number}.png", None, partial(bytes, image_bytes(number)))

    with pytest.raises(UserError, match=r"^images from fatal.png to \d+.png: a process that worked on it died"):
        list(examined(slowly(), EXAMINER, Processes(2)))
