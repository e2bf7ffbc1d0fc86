import errno
import io
import os
import tarfile
from collections import Counter
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from selftrain.corpus.sources import _is_folder, class_folders, find_images
from selftrain.images.decode import BrokenImage
from selftrain.plumbing.errors import UserError
from tests.conftest import image_bytes, tar_of, write_images


def found(
    root: Path, *paths: str, labeled: bool = True, classes: list[str] | None = None
) -> list[tuple[str, str | None]]:
    images = find_images(root, list(paths), labeled=labeled, classes=classes, ignored=Counter())
    return [(image.source, image.class_name) for image in images]


def write_tar(path: Path, members: dict[str, bytes], mode: Any = "w") -> None:
    path.write_bytes(tar_of(members, mode))


def test_class_folders_are_read_deep_and_in_order(tmp_path: Path) -> None:
    write_images(tmp_path / "a" / "dog" / "deep", 1)
    write_images(tmp_path / "a" / "cat", 2)
    (tmp_path / "a" / "cat" / "notes.txt").write_text("no image")
    assert found(tmp_path, "a") == [
        ("a/cat/0-000.png", "cat"),
        ("a/cat/0-001.png", "cat"),
        ("a/dog/deep/0-000.png", "dog"),
    ]
    assert class_folders(tmp_path, ["a"]) == ["cat", "dog"]


def test_a_flat_folder_and_a_list_of_folders(tmp_path: Path) -> None:
    write_images(tmp_path / "b", 1)
    write_images(tmp_path / "a" / "x", 1)
    assert found(tmp_path, "b", "a", labeled=False) == [("b/0-000.png", None), ("a/x/0-000.png", None)]


@pytest.mark.parametrize("size", [0, 1, 2**10, 2**20 + 7])
@pytest.mark.parametrize("at_once", [2**31, 1000])
def test_a_file_is_read_whole_however_little_comes_at_once(
    tmp_path: Path, size: int, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = os.urandom(size)
    (tmp_path / "pool").mkdir()
    (tmp_path / "pool" / "a.png").write_bytes(data)
    read = os.read
    monkeypatch.setattr(os, "read", lambda file, most: read(file, min(most, at_once)))
    (image,) = find_images(tmp_path, ["pool"], labeled=False, classes=None, ignored=Counter())
    assert image.read() == data


def test_any_file_name_is_recorded_as_valid_text(tmp_path: Path) -> None:
    (tmp_path / "pool").mkdir()
    names = ["a.b.c.PNG", "é 日本.jpg", "new\nline.gif", os.fsdecode(b"bad\xff.png")]
    for name in names:
        (tmp_path / "pool" / name).write_bytes(image_bytes())
    sources = {source for source, _ in found(tmp_path, "pool", labeled=False)}
    assert sources == {"pool/a.b.c.PNG", "pool/é 日本.jpg", "pool/new\nline.gif", "pool/bad\\xff.png"}


def test_links_are_followed_and_cycles_end(tmp_path: Path) -> None:
    write_images(tmp_path / "elsewhere", 1)
    (tmp_path / "pool").mkdir()
    (tmp_path / "pool" / "link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "pool" / "loop").symlink_to(tmp_path / "pool")
    assert found(tmp_path, "pool", labeled=False) == [("pool/link/0-000.png", None)]
    (tmp_path / "pool" / "nothing.png").symlink_to(tmp_path / "nowhere")
    (tmp_path / "pool" / "zagain").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "pool" / ".hidden.png").write_bytes(b"")
    ignored: Counter[str] = Counter()
    assert len(list(find_images(tmp_path, ["pool"], labeled=False, classes=None, ignored=ignored))) == 2
    assert ignored == {"folder that is linked again": 2, "hidden": 1}


@pytest.mark.parametrize("error", [errno.EACCES, errno.ESTALE, errno.ENOTCONN, errno.EIO])
def test_a_linked_folder_that_cannot_be_followed_just_now_stops_it(error: int) -> None:
    entry = Mock(path="pool/link", is_dir=Mock(side_effect=OSError(error, os.strerror(error))))
    with pytest.raises(UserError, match="pool/link: cannot be looked at .*its images would be taken for gone"):
        _is_folder(entry, "")
    assert not _is_folder(entry, ".png"), "an image keeps its key"
    entry.is_dir.side_effect = OSError(errno.ELOOP, "in a circle")
    assert not _is_folder(entry, "")


def test_an_image_beside_the_class_folders_has_no_class(tmp_path: Path) -> None:
    write_images(tmp_path / "a" / "cat", 1)
    write_images(tmp_path / "a", 1)
    problems = {
        i.source: i.problem for i in find_images(tmp_path, ["a"], labeled=True, classes=None, ignored=Counter())
    }
    assert problems == {"a/0-000.png": "lies beside the class folders, so it has no class", "a/cat/0-000.png": None}


@pytest.mark.parametrize(("make", "message"), [("", "no such folder"), ("a/cat", "class folder without images")])
def test_missing_and_empty_folders_are_named(tmp_path: Path, make: str, message: str) -> None:
    (tmp_path / make).mkdir(parents=True, exist_ok=True)
    with pytest.raises(UserError, match=message):
        found(tmp_path, "a")


def test_a_folder_may_be_called_like_an_archive(tmp_path: Path) -> None:
    write_images(tmp_path / "pool.tar", 1)
    write_images(tmp_path / "train.tar" / "cat", 1)
    assert found(tmp_path, "pool.tar", labeled=False) == [("pool.tar/0-000.png", None)]
    assert class_folders(tmp_path, ["train.tar"]) == ["cat"]


def test_shards_by_brace_pattern(tmp_path: Path) -> None:
    for shard in range(2):
        members = {f"s{shard}-{n}.png": image_bytes(n) for n in range(2)} | {"x.txt": b"no image"}
        members |= {f"s{shard}-{n}.cls": str(n).encode() for n in range(2)}
        write_tar(tmp_path / f"t-{shard}.tar", dict(sorted(members.items())))
    rows = found(tmp_path, "t-{0..1}.tar", classes=["cat", "dog"])
    assert rows[0] == ("t-0.tar::s0-0.png", "cat")
    assert [name for _, name in rows] == ["cat", "dog"] * 2
    assert len(found(tmp_path, str(tmp_path / "t-0.tar"), labeled=False)) == 2


def test_shards_from_any_fsspec_url(tmp_path: Path) -> None:
    import fsspec

    write_tar(tmp_path / "t.tar", {"a.png": image_bytes()})
    fsspec.filesystem("memory").pipe("/bucket/t.tar", (tmp_path / "t.tar").read_bytes())
    images = list(find_images(tmp_path, ["memory://bucket/t.tar"], labeled=False, classes=None, ignored=Counter()))
    assert [image.source for image in images] == ["memory://bucket/t.tar::a.png"]
    assert images[0].read() == image_bytes()


def test_every_image_of_a_sample_is_its_own_and_nothing_is_lost(tmp_path: Path) -> None:
    write_tar(tmp_path / "t.tar", {f"cat.{n}.png": image_bytes(n) for n in range(10)})
    assert len(found(tmp_path, "t.tar", labeled=False)) == 10


@pytest.mark.parametrize("cls", [b"9", b"cat", b"", "²".encode(), "٣".encode()])
def test_a_bad_class_index_is_a_problem_of_that_image(tmp_path: Path, cls: bytes) -> None:
    write_tar(tmp_path / "t.tar", {"a.png": image_bytes(), "a.cls": cls})
    (image,) = find_images(tmp_path, ["t.tar"], labeled=True, classes=["x"], ignored=Counter())
    assert image.problem
    assert ".cls member" in image.problem


def test_every_cut_of_a_shard_is_noticed(tmp_path: Path) -> None:
    write_tar(tmp_path / "t.tar", {f"{n}.png": image_bytes(n) for n in range(3)})
    whole = (tmp_path / "t.tar").read_bytes()
    with tarfile.open(tmp_path / "t.tar") as tar:
        tar.getmembers()
        end = tar.offset
    for length in range(0, end, 97):
        (tmp_path / "t.tar").write_bytes(whole[:length])
        with pytest.raises(UserError, match="damaged shard"):
            found(tmp_path, "t.tar", labeled=False)


def test_missing_shards_and_missing_class_names(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such shard"):
        found(tmp_path, "t.tar", labeled=False)
    write_tar(tmp_path / "t.tar", {"a.png": image_bytes(), "a.cls": b"0"})
    with pytest.raises(UserError, match=r"ingest\.classes: missing"):
        found(tmp_path, "t.tar")


def test_a_flat_folder_cannot_be_labeled(tmp_path: Path) -> None:
    write_images(tmp_path / "a", 2)
    with pytest.raises(UserError, match="no class folders in it; labeled images lie in one folder a class"):
        class_folders(tmp_path, ["a"])


def test_what_is_no_image_is_counted_by_suffix(tmp_path: Path) -> None:
    write_images(tmp_path / "pool", 2)
    for name in ("a.psd", "b.psd", "no_suffix", "c.txt"):
        (tmp_path / "pool" / name).write_text("x")
    os.mkfifo(tmp_path / "pool" / "pipe.png")
    write_tar(tmp_path / "t.tar", {"a.png": image_bytes(), "a.mask.png": image_bytes(), "a.cls": b"0", "a.npy": b""})
    ignored: Counter[str] = Counter()
    images = list(find_images(tmp_path, ["pool", "t.tar"], labeled=False, classes=None, ignored=ignored))
    assert len(images) == 3
    assert ignored == {".psd": 2, "": 1, ".txt": 1, "not a file": 1, ".mask.png": 1, ".npy": 1}


def test_mistakes_in_patterns_and_names_are_user_errors(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="its braces do not match"):
        found(tmp_path, "x-{000..1.tar", labeled=False)
    (tmp_path / "a" / os.fsdecode(b"caf\xe9")).mkdir(parents=True)
    with pytest.raises(UserError, match="must be valid, printable text"):
        class_folders(tmp_path, ["a"])


@pytest.mark.parametrize("suffix", ["tar.gz", "tgz", "tar.bz2", "tar.xz"])
def test_every_flipped_bit_of_a_compressed_shard_is_noticed(tmp_path: Path, suffix: str) -> None:
    contents = {f"{n}.png": image_bytes(n) for n in range(3)}
    path = tmp_path / f"t.{suffix}"
    modes: dict[str, Any] = {"tar.gz": "w:gz", "tgz": "w:gz", "tar.bz2": "w:bz2", "tar.xz": "w:xz"}
    write_tar(path, contents, modes[suffix])
    whole, harmless = path.read_bytes(), 0
    for place in range(0, len(whole), 7):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << place % 8
        path.write_bytes(damaged)
        try:
            images = list(find_images(tmp_path, [path.name], labeled=False, classes=None, ignored=Counter()))
        except UserError as error:
            harmless += "damaged shard" not in str(error)
        else:
            assert [image.read() for image in images] == list(contents.values()), place
            harmless += 1  # the name and the time in gzip's header
    assert harmless < 5


def test_tars_that_were_put_together_are_named(tmp_path: Path) -> None:
    for name in "ab":
        write_tar(tmp_path / f"{name}.tar", {f"{name}.png": image_bytes()})
    (tmp_path / "both.tar").write_bytes((tmp_path / "a.tar").read_bytes() + (tmp_path / "b.tar").read_bytes())
    with pytest.raises(UserError, match=r"both.tar: damaged shard \(something follows its end mark"):
        found(tmp_path, "both.tar", labeled=False)


def test_members_that_are_no_images_of_their_own(tmp_path: Path) -> None:
    """macOS' shadow files, links, names twice, names that are no UTF-8, and one that promises a terabyte."""
    with tarfile.open(tmp_path / "t.tar", "w", encoding="utf-8") as tar:

        def add(name: str, data: bytes = b"", **fields: Any) -> None:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            for field, value in fields.items():
                setattr(info, field, value)
            tar.addfile(info, io.BytesIO(data))

        for number, suffix in enumerate(("png", "PNG")):
            add(f"a.{suffix}", image_bytes(number))
            add(f"._a.{suffix}", b"Mac OS X")
        add("a.cls", b"0")
        add("a.cls", b"1")
        add("link.png", type=tarfile.SYMTYPE, linkname="a.png")
        add("link.cls", b"1")
        add("nowhere.png", type=tarfile.SYMTYPE, linkname="b.png")
        add("pipe.png", type=tarfile.FIFOTYPE)
        add(os.fsdecode(b"caf\xe9.png"), image_bytes(2))
        add(os.fsdecode(b"caf\xe9.cls"), b"0")
    ignored: Counter[str] = Counter()
    images = list(find_images(tmp_path, ["t.tar"], labeled=True, classes=["x", "y"], ignored=ignored))
    assert [(image.source, image.class_name) for image in images] == [
        ("t.tar::a.png", "x"), ("t.tar::link.png", "y"), (r"t.tar::caf\xe9.png", "x"),
    ]  # fmt: skip
    assert [image.read() for image in images] == [image_bytes(0), image_bytes(0), image_bytes(2)]
    assert ignored == {"hidden": 2, "named twice": 2, "link to nowhere": 1, "not a file": 1}

    huge = tarfile.TarInfo("b.png")
    huge.size = 10**12
    (tmp_path / "h.tar").write_bytes(huge.tobuf(tarfile.GNU_FORMAT) + b"x" * 512)
    with pytest.raises(UserError, match="damaged shard"):
        found(tmp_path, "h.tar", labeled=False)
    with pytest.raises(UserError, match="its braces name 1,000,000,000 shards, more than 1,000,000"):
        found(tmp_path, "t-{0..999999999}.tar", labeled=False)


def test_files_that_are_too_large_are_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("selftrain.corpus.source_image.MAX_BYTES", 100)
    (tmp_path / "pool").mkdir()
    (tmp_path / "pool" / "a.png").write_bytes(bytes(101))
    write_tar(tmp_path / "t.tar", {"a.png": bytes(101)})
    (file, member) = find_images(tmp_path, ["pool", "t.tar"], labeled=False, classes=None, ignored=Counter())
    with pytest.raises(BrokenImage, match="has 101 bytes; more than 100 are not read"):
        file.read()
    assert member.problem == "has 101 bytes; more than 100 are not read"


def test_names_that_machines_write(tmp_path: Path) -> None:
    """A NAS's folders are no classes; letters with accents are one whoever wrote them."""
    for name in ("caf\u00e9", "cat", "@eaDir", "__MACOSX", ".Trash"):
        write_images(tmp_path / "labeled" / name, 1)
    write_images(tmp_path / "labeled" / "cat" / "@eaDir", 1)
    write_images(tmp_path / "test" / "cafe\u0301", 1)
    assert class_folders(tmp_path, ["labeled"]) == ["caf\u00e9", "cat"]
    assert class_folders(tmp_path, ["test"]) == ["caf\u00e9"]
    images = find_images(tmp_path, ["labeled", "test"], labeled=True, classes=None, ignored=Counter())
    assert [image.class_name for image in images] == ["caf\u00e9", "cat", "caf\u00e9"]
