"""A person's answers as labeled images, and what ingest makes of them."""

import csv
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import yaml

from selftrain.corpus.answers import ANSWERS, move_to_labeled
from selftrain.corpus.ingest import ingest
from selftrain.plumbing.errors import UserError
from selftrain.tables.corrections import no_corrections, read_corrections, write_corrections
from tests.repository import in_process, with_pipeline

NOW = datetime(2026, 11, 26, tzinfo=UTC)
CLASSES = ["cat", "dog", "owl"]


def manifest(corpus: Path, split: str) -> pl.DataFrame:
    return pl.read_parquet(sorted((corpus / split / "manifest").glob("*.parquet")))


def test_answers_are_labeled_images_and_their_images_of_the_pool_are_duplicates(
    ingest_config: Any, photos: Path, tmp_path: Path
) -> None:
    corpus, file = tmp_path / "corpus", tmp_path / "corrections.parquet"
    ingest(ingest_config(), 0, corpus)
    pool = manifest(corpus, "unlabeled").sort("key")
    said = [("correct", "dog"), ("reject", None), ("correct", "owl")]
    rows = [
        {"key": row["key"], "action": action, "label": label, "who": "me", "when": NOW, "sha256": row["sha256"]}
        for row, (action, label) in zip(pool.iter_rows(named=True), said, strict=False)
    ]
    table = pl.DataFrame(rows, schema=no_corrections().schema)
    write_corrections(file, table)
    written = move_to_labeled(file, corpus, ingest_config())
    assert [path.parent.name for path in written] == ["dog", "owl"]
    assert read_corrections(file)["action"].to_list() == ["reject"]
    for path, row in zip(written, (pool.row(0, named=True), pool.row(2, named=True)), strict=True):
        assert path.read_bytes() == (photos / row["source"]).read_bytes()
    with (photos / ANSWERS).open(newline="") as lines:
        answers = list(csv.DictReader(lines))
    assert [(row["label"], row["who"], row["when"]) for row in answers] == [
        ("dog", "me", NOW.isoformat()), ("owl", "me", NOW.isoformat()),
    ]  # fmt: skip
    assert [row["pool_image"] for row in answers] == [pool["source"][0], pool["source"][2]]
    assert [photos / row["file"] for row in answers] == written

    # A kill before the corrections were written: the same again, and no line twice.
    write_corrections(file, table)
    assert move_to_labeled(file, corpus, ingest_config()) == written
    with (photos / ANSWERS).open(newline="") as lines:
        assert list(csv.DictReader(lines)) == answers
    assert move_to_labeled(file, corpus, ingest_config()) == [], "rejections are no answers"

    before = len(manifest(corpus, "labeled"))
    ingest(ingest_config(), 0, corpus)
    labeled = manifest(corpus, "labeled")
    assert len(labeled) == before + 2
    new = labeled.filter(pl.col("source").str.contains("answer-")).sort("label")
    assert new["label"].to_list() == [1, 2]
    repeats = pl.read_parquet(corpus / "duplicates.parquet").filter(pl.col("kind") == "duplicate")
    assert set(zip(repeats["key"], repeats["of_key"], strict=True)) == set(
        zip(pool["key"].to_list()[:3:2], new["key"], strict=True)
    )


@pytest.mark.parametrize("folder", ["labeled", "@labeled"])
def test_another_answer_takes_the_place_of_the_first(
    ingest_config: Any, photos: Path, tmp_path: Path, folder: str
) -> None:
    corpus, file = tmp_path / "corpus", tmp_path / "corrections.parquet"
    (photos / "labeled").rename(photos / folder)  # a spreadsheet takes a name that begins with @ for a formula
    config = ingest_config(labeled={"images": folder})
    ingest(config, 0, corpus)
    row = manifest(corpus, "unlabeled").row(0, named=True)
    for label in ("dog", "owl"):
        said = {"key": row["key"], "action": "correct", "label": label, "who": "me", "when": NOW}
        write_corrections(file, pl.DataFrame([said | {"sha256": row["sha256"]}], schema=no_corrections().schema))
        (written,) = move_to_labeled(file, corpus, config)
        assert list((photos / folder).rglob("answer-*")) == [written]
        with (photos / ANSWERS).open(newline="") as lines:
            assert [line["label"] for line in csv.DictReader(lines)] == [label]


def test_copies_of_held_out_images_are_no_answers(
    ingest_config: Any, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    corpus, file = tmp_path / "corpus", tmp_path / "corrections.parquet"
    leak = sorted((photos / "test" / "cat").iterdir())[0]
    (photos / "pool" / "leak.png").write_bytes(leak.read_bytes())
    ingest(ingest_config(), 0, corpus)
    row = manifest(corpus, "unlabeled").filter(pl.col("source") == "pool/leak.png").row(0, named=True)
    said = {"key": row["key"], "action": "correct", "label": "cat", "who": "me", "when": NOW, "sha256": row["sha256"]}
    write_corrections(file, pl.DataFrame([said], schema=no_corrections().schema))
    assert move_to_labeled(file, corpus, ingest_config()) == []
    assert len(read_corrections(file)) == 1
    assert "1 corrected images are copies of validation or test images and stay there" in capsys.readouterr().out


def test_a_stage_that_would_remove_the_answers_is_named(
    ingest_config: Any, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus, file = tmp_path / "corpus", tmp_path / "corrections.parquet"
    ingest(ingest_config(), 0, corpus)
    row = manifest(corpus, "unlabeled").row(0, named=True)
    said = {"key": row["key"], "action": "correct", "label": "dog", "who": "me", "when": NOW, "sha256": row["sha256"]}
    write_corrections(file, pl.DataFrame([said], schema=no_corrections().schema))
    monkeypatch.chdir(tmp_path)
    made = {"stages": {"fetch@photos": {"cmd": "true", "outs": [{"path": str(photos)}]}}}
    of_pipeline = Path("pipelines/other/dvc.lock")
    of_pipeline.parent.mkdir(parents=True)
    for lock in (of_pipeline, Path("dvc.lock")):
        lock.write_text(json.dumps(made))
        with pytest.raises(UserError, match=r"the stage 'fetch' makes it, and would remove the answers"):
            move_to_labeled(file, corpus, ingest_config())
        assert len(read_corrections(file)) == 1
        lock.unlink()
    Path("dvc.lock").write_text(json.dumps(made).replace(str(photos), "photos of others").replace("fetch", "digits"))
    assert len(move_to_labeled(file, corpus, ingest_config())) == 1


def test_labeled_images_that_are_no_folder(ingest_config: Any, tmp_path: Path) -> None:
    corpus, file = tmp_path / "corpus", tmp_path / "corrections.parquet"
    ingest(ingest_config(), 0, corpus)
    row = manifest(corpus, "unlabeled").row(0, named=True)
    said = {"key": row["key"], "action": "correct", "label": "dog", "who": "me", "when": NOW, "sha256": row["sha256"]}
    write_corrections(file, pl.DataFrame([said], schema=no_corrections().schema))
    shards = ingest_config(labeled={"images": "labeled-{000..003}.tar"})
    with pytest.raises(UserError, match=r"ingest.labeled.images: is no folder of class folders"):
        move_to_labeled(file, corpus, shards)
    assert len(read_corrections(file)) == 1


def test_the_commands(ingest_config: Any, photos: Path, tmp_path: Path) -> None:
    long_name = photos / "pool" / f"{'ä' * 110}.png"
    (photos / "pool" / "50-000.png").rename(long_name)
    folder = tmp_path / "project"
    folder.mkdir()
    config = ingest_config()
    params = with_pipeline({"ingest": config.model_dump(mode="json"), "supervised": {"teacher": {}}})
    (folder / "params.yaml").write_text(yaml.safe_dump(params))
    corpus, mine, theirs = folder / "data" / "corpus", folder / "corrections.parquet", tmp_path / "theirs.parquet"
    ingest(config, 0, corpus)
    first, second, third = manifest(corpus, "unlabeled").sort("source", descending=True).head(3).iter_rows(named=True)
    assert first["source"] == f"pool/{long_name.name}"

    def said(row: dict[str, Any], action: str, label: str | None = None) -> dict[str, Any]:
        return {"key": row["key"], "action": action, "label": label, "who": "me", "when": NOW, "sha256": row["sha256"]}

    def write(path: Path, *rows: dict[str, Any]) -> None:
        write_corrections(path, pl.DataFrame(rows, schema=no_corrections().schema))

    write(mine, said(first, "correct", "dog"))
    write(theirs, said(first, "correct", "dog"), said(second, "reject"), said(third, "correct", "zebra"))
    assert "2 corrections of" in in_process(folder, ("corrections", "merge", str(theirs)))
    pruned = in_process(folder, ("corrections", "prune"))
    assert f"key {third['key']} removed: there is no class 'zebra'" in pruned
    assert "1 stale rows removed" in pruned
    moved = in_process(folder, ("corrections", "to-labeled"))
    assert "1 answers are labeled images now" in moved
    (answer,) = (photos / "labeled" / "dog").glob("answer-*.png")
    assert str(answer) in moved
    assert answer.name.endswith("ää.png")
    assert read_corrections(mine)["action"].to_list() == ["reject"]
