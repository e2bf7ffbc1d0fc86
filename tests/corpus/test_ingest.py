import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import polars as pl
import pytest
import webdataset

from selftrain.corpus.ingest import ingest
from selftrain.images.reader import read_rows
from selftrain.plumbing.errors import UserError
from selftrain.plumbing.files import read_json
from selftrain.tables.manifest import find_rows, read_manifest
from tests.conftest import MakeConfig, image_bytes, write_images
from tests.corpus.manifests import keys_of


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_manifest_rows_lead_to_the_bytes_as_found(ingest_config: MakeConfig, photos: Path, tmp_path: Path) -> None:
    (photos / "pool" / "odd.name é.webp").write_bytes(image_bytes(7, (20, 30), "WEBP"))
    ingest(ingest_config(), 0, tmp_path / "corpus")
    by_key = {key: source for source, key in keys_of(tmp_path / "corpus", "unlabeled").items()}
    assert len(by_key) == 10
    rows = find_rows(tmp_path / "corpus" / "unlabeled", by_key)
    assert dict(read_rows(tmp_path / "corpus" / "unlabeled", rows)) == {
        key: (photos / source).read_bytes() for key, source in by_key.items()
    }
    formats = dict(rows.select("key", "format").iter_rows())
    assert {key: formats[key] == "WEBP" for key in by_key} == {key: "odd" in source for key, source in by_key.items()}


def test_any_webdataset_reader_opens_the_shards(ingest_config: MakeConfig, tmp_path: Path) -> None:
    ingest(ingest_config(), 0, tmp_path / "corpus")
    tars = sorted(str(path) for path in (tmp_path / "corpus" / "labeled").glob("*.tar"))
    samples = list(webdataset.WebDataset(tars, shardshuffle=False))
    manifest = read_manifest(tmp_path / "corpus" / "labeled", ["key", "label"]).to_pylist()
    assert [(int(s["__key__"]), int(s["cls"])) for s in samples] == [(row["key"], row["label"]) for row in manifest]
    assert read_json(tmp_path / "corpus" / "classes.json", "") == ["cat", "dog", "owl"]


def test_again_changes_nothing_and_new_images_go_to_new_shards(
    ingest_config: MakeConfig, photos: Path, tmp_path: Path
) -> None:
    corpus = tmp_path / "corpus"
    ingest(ingest_config(), 0, corpus)
    before = files(corpus)
    ingest(ingest_config(), 0, corpus)
    assert files(corpus) == before
    write_images(photos / "pool" / "more", 7, 99)
    ingest(ingest_config(), 0, corpus)
    after = files(corpus)
    assert {name for name in before if after.get(name) != before[name]} == {"summary.json", "unlabeled/next_shard"}
    assert sorted(set(after) - set(before)) == [
        f"unlabeled/{name}-0000000{shard}.{end}"
        for name, end in (("manifest/part", "parquet"), ("shard", "tar"))
        for shard in (2, 3)
    ]


def test_a_removed_or_changed_image_touches_only_its_own_shard(
    ingest_config: MakeConfig, photos: Path, tmp_path: Path
) -> None:
    corpus = tmp_path / "corpus"
    ingest(ingest_config(), 0, corpus)
    before, keys = files(corpus), keys_of(corpus, "unlabeled")
    removed, changed = sorted(keys)[6], sorted(keys)[7]
    (photos / removed).unlink()
    (photos / changed).write_bytes(image_bytes(1234))
    ingest(ingest_config(), 0, corpus)
    after = files(corpus)
    assert after["unlabeled/shard-00000000.tar"] == before["unlabeled/shard-00000000.tar"]
    assert after["unlabeled/shard-00000001.tar"] != before["unlabeled/shard-00000001.tar"]
    now = keys_of(corpus, "unlabeled")
    assert now.pop(changed) not in keys.values(), "another picture has another key"
    assert now == {source: key for source, key in keys.items() if source not in (removed, changed)}
    rows = find_rows(corpus / "unlabeled", [keys_of(corpus, "unlabeled")[changed]])
    assert [data for _, data in read_rows(corpus / "unlabeled", rows)] == [image_bytes(1234)]


def test_a_key_is_never_given_twice(ingest_config: MakeConfig, photos: Path, tmp_path: Path) -> None:
    corpus = tmp_path / "corpus"
    ingest(ingest_config(), 0, corpus)
    before = set(keys_of(corpus, "unlabeled").values())
    for path in sorted((photos / "pool").iterdir())[5:]:  # the whole last shard
        path.unlink()
    ingest(ingest_config(), 0, corpus)
    write_images(photos / "pool" / "new", 3, 91)
    ingest(ingest_config(), 0, corpus)
    new = {key for source, key in keys_of(corpus, "unlabeled").items() if "new" in source}
    assert len(new) == 3
    assert not new & before


def test_a_pool_that_is_gone_empties_nothing(ingest_config: MakeConfig, photos: Path, tmp_path: Path) -> None:
    corpus = tmp_path / "corpus"
    ingest(ingest_config(), 0, corpus)
    before = files(corpus)
    (photos / "pool").rename(photos / "unmounted")
    (photos / "pool").mkdir()
    with pytest.raises(UserError, match="pool: no images in it; is it mounted"):
        ingest(ingest_config(), 0, corpus)
    assert files(corpus) == before
    (photos / "pool").rmdir()
    (photos / "unmounted").rename(photos / "pool")
    ingest(ingest_config(), 0, corpus)
    assert files(corpus) == before


def test_one_of_two_pools_that_is_gone_empties_nothing(ingest_config: MakeConfig, photos: Path, tmp_path: Path) -> None:
    write_images(photos / "pool2", 5, 300)
    config, corpus = ingest_config(unlabeled={"images": ["pool", "pool2"]}), tmp_path / "corpus"
    ingest(config, 0, corpus)
    before = files(corpus)
    (photos / "pool2").rename(photos / "unmounted")
    (photos / "pool2").mkdir()
    with pytest.raises(UserError, match="pool2: no images in it; is it mounted"):
        ingest(config, 0, corpus)
    assert files(corpus) == before


def test_an_image_that_cannot_be_read_just_now_keeps_its_key(
    ingest_config: MakeConfig, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    corpus = tmp_path / "corpus"
    ingest(ingest_config(), 0, corpus)
    before = files(corpus)
    path = sorted((photos / "pool").iterdir())[2]
    data = path.read_bytes()
    path.unlink()
    path.symlink_to(path)  # too many levels of links: no error that says that it is gone
    capsys.readouterr()
    summary = ingest(ingest_config(), 0, corpus)
    assert f"unlabeled: pool/{path.name} cannot be read" in capsys.readouterr().out
    assert summary["unlabeled"]["quarantined"] == 0
    assert files(corpus) == before
    path.unlink()
    path.write_bytes(data)
    ingest(ingest_config(), 0, corpus)
    assert files(corpus) == before


def test_other_files_are_counted_by_suffix_and_odd_ones_together(
    ingest_config: MakeConfig, photos: Path, tmp_path: Path
) -> None:
    names = ["a.txt", "b.txt", "rec.000001", "rec.000002", "x.a very long one", *(f"n.s{n}" for n in range(70))]
    for name in [*map(os.fsencode, names), b"Kopie.jpg (f\xfcr)", b"k.\xfc"]:
        (photos / "pool" / os.fsdecode(name)).write_bytes(b"")
    (photos / "labeled" / "beside.psd").write_bytes(b"")
    summary = ingest(ingest_config(), 0, tmp_path / "corpus")
    assert summary["labeled"]["no_images"] == {".psd": 1}
    found = summary["unlabeled"]["no_images"]
    assert found[".txt"] == 2
    assert found["others"] == len(names) + 2 - sum(number for suffix, number in found.items() if suffix != "others")
    assert found["others"] >= 5
    assert len(found) <= 52


def test_a_labeled_image_in_a_held_out_split_is_told(
    ingest_config: MakeConfig, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = min((photos / "labeled" / "cat").iterdir())
    (photos / "test" / "dog" / "same.png").write_bytes(shown.read_bytes())
    summary = ingest(ingest_config(), 0, tmp_path / "corpus")
    assert summary["labeled"]["held_out_too"] == 1
    assert "1 labeled images are also validation or test images" in capsys.readouterr().out
    assert pl.read_parquet(tmp_path / "corpus" / "duplicates.parquet").is_empty()


def test_a_new_class_relabels_everything(ingest_config: MakeConfig, photos: Path, tmp_path: Path) -> None:
    corpus = tmp_path / "corpus"
    ingest(ingest_config(), 0, corpus)
    for split in ("labeled", "validation", "test"):
        write_images(photos / split / "bee", 1, 77 + len(split))
    ingest(ingest_config(), 0, corpus)
    rows = read_manifest(corpus / "labeled", ["source", "label"]).to_pylist()
    assert {row["source"].split("/")[1]: row["label"] for row in rows} == {"bee": 0, "cat": 1, "dog": 2, "owl": 3}


def test_broken_images_are_quarantined_and_counted(ingest_config: MakeConfig, photos: Path, tmp_path: Path) -> None:
    (photos / "pool" / "broken.jpg").write_bytes(b"nothing")
    (photos / "pool" / "link.png").symlink_to(photos / "nowhere.png")
    (photos / "labeled" / "stray.png").write_bytes(image_bytes())
    summary = ingest(ingest_config(unlabeled={"images": ["pool", "pool"]}), 0, tmp_path / "corpus")
    rows = pl.read_parquet(tmp_path / "corpus" / "quarantine.parquet").rows()
    assert {(split, source): reason.split(":")[0] for split, source, reason in rows} == {
        ("labeled", "labeled/stray.png"): "lies beside the class folders, so it has no class",
        (
            "unlabeled",
            "pool/broken.jpg",
        ): "not an image in a known format (JPEG, PNG, WEBP, BMP, GIF, TIFF, AVIF, HEIF)",
        ("unlabeled", "pool/link.png"): "cannot be read",
    }
    counts = summary["unlabeled"]
    assert (counts["found"], counts["images"], counts["quarantined"], counts["listed_twice"]) == (22, 9, 2, 11)


def test_too_many_broken_images_stop_ingest(ingest_config: MakeConfig, photos: Path, tmp_path: Path) -> None:
    (photos / "pool" / "broken.jpg").write_bytes(b"")
    ingest(ingest_config(max_quarantined=0.1), 0, tmp_path / "corpus")
    (photos / "pool" / "worse.jpg").write_bytes(b"")
    with pytest.raises(
        UserError, match=r"2 of the 11 images of split 'unlabeled' are broken.*pool/broken.jpg: empty file"
    ):
        ingest(ingest_config(max_quarantined=0.1), 0, tmp_path / "corpus")
    assert len(pl.read_parquet(tmp_path / "corpus" / "quarantine.parquet")) == 2


def test_leaks_and_duplicates_are_found(ingest_config: MakeConfig, photos: Path, tmp_path: Path) -> None:
    pool = photos / "pool"
    test_image = min((photos / "test" / "dog").iterdir())
    (pool / "leak.png").write_bytes(test_image.read_bytes())
    (pool / "z-twin.bmp").write_bytes(image_bytes(50_000, image_format="BMP"))  # pool/50-000.png, in another format
    (pool / "labeled.png").write_bytes(min((photos / "labeled" / "cat").iterdir()).read_bytes())
    tmp_path = tmp_path / 'it\'s "here"'
    ingest(ingest_config(), 0, tmp_path / "corpus")
    names = {
        key: source
        for split in ("labeled", "unlabeled", "test")
        for source, key in keys_of(tmp_path / "corpus", split).items()
    }
    rows = pl.read_parquet(tmp_path / "corpus" / "duplicates.parquet").rows()
    assert {(names[key], kind, names[of]) for key, kind, of, _, _ in rows} == {
        ("pool/leak.png", "leak", str(test_image.relative_to(photos))),
        ("pool/z-twin.bmp", "duplicate", "pool/50-000.png"),
        ("pool/labeled.png", "duplicate", "labeled/cat/10-000.png"),
    }


def test_classes_that_differ_between_splits_are_named(ingest_config: MakeConfig, photos: Path, tmp_path: Path) -> None:
    write_images(photos / "test" / "bee", 1)
    with pytest.raises(UserError, match="class 'bee' is a folder of split 'test', but not a class of split 'labeled'"):
        ingest(ingest_config(), 0, tmp_path / "corpus")
    write_images(photos / "labeled" / "bee", 1)
    with pytest.raises(UserError, match="class 'bee' has no folder in split 'validation'"):
        ingest(ingest_config(), 0, tmp_path / "corpus")


def test_an_empty_pool_is_an_error(ingest_config: MakeConfig, photos: Path, tmp_path: Path) -> None:
    (photos / "empty").mkdir()
    with pytest.raises(UserError, match="empty: no images in it; is it mounted"):
        ingest(ingest_config(unlabeled={"images": "empty"}), 0, tmp_path / "corpus")


def test_splits_cut_from_one_folder(ingest_config: MakeConfig, tmp_path: Path) -> None:
    cut = {"cut_from": "labeled", "share": 0.25}
    summary = ingest(ingest_config(validation=cut, test=cut), 0, tmp_path / "corpus")
    assert [summary[split]["per_class"] for split in ("labeled", "validation", "test")] == [
        dict.fromkeys(("cat", "dog", "owl"), count) for count in (2, 1, 1)
    ]


def test_killed_at_any_moment_and_run_again_it_ends_the_same(photos: Path, tmp_path: Path) -> None:
    write_images(photos / "pool", 300, 60)
    values = (
        f"dict(root={str(photos)!r}, labeled=dict(images='labeled'), unlabeled=dict(images='pool'), "
        "validation=dict(images='validation'), test=dict(images='test'), images_per_shard=7)"
    )
    program = (
        "import sys; from pathlib import Path; from selftrain.corpus.ingest import ingest\n"
        f"from selftrain.params.ingest import IngestConfig\ningest(IngestConfig(**{values}), 0, Path(sys.argv[1]))"
    )
    command = [sys.executable, "-c", program]
    subprocess.run([*command, str(tmp_path / "whole")], check=True, capture_output=True)
    parts = tmp_path / "killed" / "unlabeled" / "manifest"
    for wanted in (1, 12, 13, 30, 10**6):
        process = subprocess.Popen([*command, str(tmp_path / "killed")], stdout=subprocess.DEVNULL)
        while process.poll() is None and len(list(parts.glob("part-*"))) < wanted:
            time.sleep(0.001)
        if wanted < 10**6:
            assert process.poll() is None, "ended before it could be killed"
            os.kill(process.pid, signal.SIGKILL)
        process.wait()
    assert process.returncode == 0
    assert files(tmp_path / "killed") == files(tmp_path / "whole")


def test_one_picture_in_two_classes_is_told(
    ingest_config: MakeConfig, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ingest(ingest_config(), 0, tmp_path / "corpus")["labeled"]["in_two_classes"] == 0
    first = sorted((photos / "labeled" / "cat").iterdir())[0]
    (photos / "labeled" / "dog" / "again.png").write_bytes(first.read_bytes())
    (photos / "labeled" / "cat" / "again.png").write_bytes(first.read_bytes())
    assert ingest(ingest_config(), 0, tmp_path / "corpus")["labeled"]["in_two_classes"] == 1
    said = capsys.readouterr().out
    assert "warning: 1 labeled pictures lie in two classes" in said
    named = {f"labeled/{name}" for name in (f"cat/{first.name}", "cat/again.png", "dog/again.png")}
    assert named in [set(line.strip().split(", ")) for line in said.splitlines()]
