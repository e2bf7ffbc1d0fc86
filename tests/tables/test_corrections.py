from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from selftrain.params.select import SelectConfig
from selftrain.plumbing.errors import UserError
from selftrain.selection.select import select
from selftrain.tables.corrections import (
    check_corrections,
    merge_files,
    no_corrections,
    prune,
    read_corrections,
    write_corrections,
)
from selftrain.tables.keys import make_key
from selftrain.tables.selection import scan_selection
from tests.repository import ROOT
from tests.selection.tables import CLASSES, correction, write_corpus, write_predictions, write_rows

KEY, OTHER = make_key("unlabeled", 0, 0), make_key("unlabeled", 0, 1)


def test_equal_rows_give_equal_bytes_in_any_order(tmp_path: Path) -> None:
    rows = [correction(OTHER, "b"), correction(KEY)]
    for name, order in (("one", rows), ("two", rows[::-1])):
        write_corrections(tmp_path / name, pl.DataFrame(order, schema=no_corrections().schema))
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    assert read_corrections(tmp_path / "one").rows(named=True) == rows[::-1]


@pytest.mark.parametrize("path", ["corrections.parquet", "pipelines/noisy_student_lite/corrections.parquet"])
def test_the_shipped_files_are_empty_and_whole(path: str) -> None:
    assert len(read_corrections(ROOT / path)) == 0


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([correction(KEY), correction(KEY, "b")], rf"rows 1 and 2 are both of key {KEY}: reject, and correct to 'b'; keep one"),
        ([correction(OTHER), correction(KEY, action="remove")], rf"row 2 \(key {KEY}\): there is no action 'remove'"),
        ([correction(KEY, action="correct")], r"row 1 .* 'correct' takes a label, other actions take none; found None"),
        ([correction(KEY, "a", action="reject")], r"found 'a'"),
        ([correction(KEY, "a", action="no_copy")], r"found 'a'"),
        ([correction(KEY, sha256=None)], r"row 1 .* key and sha256 may not be empty"),
        ([correction(make_key("unlabeled", 9, 9))], r"the row of key 200000009000009 \(reject\) is stale: the corpus has no such image; `selftrain corrections prune`"),
        ([correction(make_key("test", 0, 0), "a")], r"\(correct to 'a'\) is stale: it is a test image, and only unlabeled ones are"),
        ([correction(-5)], r"key -5 \(reject\) is stale: the corpus has no such image"),
        ([correction(KEY, sha256=b"x" * 32)], r"the key means another image than when it was corrected"),
        ([correction(KEY, "zebra")], r"there is no class 'zebra' \(there are: a, b, c\)"),
    ],
)  # fmt: skip
def test_wrong_rows_are_named(tmp_path: Path, rows: list[dict[str, Any]], message: str) -> None:
    corpus = write_corpus(tmp_path / "c", {}, [KEY, OTHER])
    path = write_rows(tmp_path / "corrections.parquet", rows)
    with pytest.raises(UserError, match=message):
        check_corrections(read_corrections(path), path, CLASSES, corpus / "unlabeled")


def test_a_file_that_is_something_else_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none: no such file; git may have it"):
        read_corrections(tmp_path / "none")
    (tmp_path / "text").write_text("key,action")
    with pytest.raises(UserError, match="text: not a Parquet file"):
        read_corrections(tmp_path / "text")
    pl.DataFrame({"key": ["a"]}).write_parquet(tmp_path / "other")
    with pytest.raises(UserError, match=r"other: expected the columns key \(Int64\), .*; found key \(String\)"):
        read_corrections(tmp_path / "other")


def test_an_altered_copy_that_a_person_calls_none_is_decided_on_like_any_image(tmp_path: Path, capsys: Any) -> None:
    rows = [(0, 0.9), (1, 0.9), (2, 0.1), (2, 0.9), (0, 0.8)]
    keys = write_predictions(tmp_path / "p", rows)
    kinds = ["near leak", "near duplicate", "near leak", "leak", "near leak"]
    corpus = write_corpus(tmp_path / "c", dict(zip(keys, kinds, strict=True)), keys)
    said = [correction(key, action="no_copy") for key in keys[:4]]
    path = write_rows(tmp_path / "corrections.parquet", said)
    select(SelectConfig(threshold=0.5), 0, tmp_path / "p", corpus, tmp_path / "out", path)
    decided = scan_selection(tmp_path / "out").collect()
    assert decided["decision"].to_list() == ["kept", "kept", "low_confidence", "leak", "leak"]
    assert "1 images that are called no copies equal another image, and stay out" in capsys.readouterr().out


def test_a_copy_of_a_held_out_image_stays_out_whatever_is_said(tmp_path: Path, capsys: Any) -> None:
    keys = write_predictions(tmp_path / "p", [(0, 0.9), (1, 0.9), (2, 0.1), (2, 0.9)])
    corpus = write_corpus(tmp_path / "c", {keys[0]: "leak", keys[1]: "duplicate"}, keys)
    path = write_rows(tmp_path / "r", [correction(key, "c") for key in keys[:3]])
    select(SelectConfig(threshold=0.5), 0, tmp_path / "p", corpus, tmp_path / "out", path)
    assert scan_selection(tmp_path / "out").collect()["decision"].to_list() == [
        "leak",
        "corrected",
        "corrected",
        "kept",
    ]
    assert "1 corrected images are copies of held-out images" in capsys.readouterr().out


def test_the_student_is_sure_of_a_corrected_label(digits_corpus: Path, digits_rounds: Path, tmp_path: Path) -> None:
    import torch

    from selftrain.learning.losses import with_temperature
    from selftrain.training.pseudo_labels import load_pseudo_labels

    predictions = digits_rounds / "predictions" / "noisy_student" / "teacher" / "unlabeled"
    manifest = pl.read_parquet(digits_corpus / "unlabeled" / "manifest" / "*.parquet").sort("key")
    chosen = manifest.row(700, named=True)
    path = write_rows(tmp_path / "r", [correction(chosen["key"], "7", sha256=chosen["sha256"])])
    select(SelectConfig(threshold=0.5), 0, predictions, digits_corpus, tmp_path / "s", path)
    made = load_pseudo_labels(digits_corpus / "unlabeled", tmp_path / "s", predictions)
    (place,) = np.flatnonzero(made.index.keys == chosen["key"])
    assert made.soft_labels is not None
    log_probs = torch.from_numpy(made.soft_labels[:])
    targets = with_temperature(log_probs, 2.0)
    assert targets[place].tolist() == [float(label == 7) for label in range(10)]
    assert (made.epoch == place).sum() >= 1
    others = np.arange(len(made.index)) != place
    assert (targets[others].max(dim=1).values < 1).all()
    assert np.isfinite(log_probs).all()
    # Algorithms that label the images themselves are told, and read no table.
    assert made.known[place] == 7
    assert set(made.known[others]) == {-1}
    without = load_pseudo_labels(digits_corpus / "unlabeled", tmp_path / "s", predictions, with_soft_labels=False)
    assert without.soft_labels is None
    assert np.array_equal(without.known, made.known)


def test_stale_rows_are_counted_and_pruned(tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "c", {}, [KEY, OTHER])
    path = write_rows(
        tmp_path / "corrections.parquet",
        [correction(KEY, "a"), correction(OTHER, "zebra"), correction(make_key("unlabeled", 9, 9))],
    )
    with pytest.raises(UserError, match=r"is stale, as are 1 more: there is no class 'zebra'"):
        check_corrections(read_corrections(path), path, CLASSES, corpus / "unlabeled")
    assert list(prune(path, CLASSES, corpus / "unlabeled")) == [OTHER, make_key("unlabeled", 9, 9)]
    assert read_corrections(path)["key"].to_list() == [KEY]
    before = path.read_bytes()
    assert prune(path, CLASSES, corpus / "unlabeled") == {}
    assert path.read_bytes() == before


def test_two_peoples_files_become_one(tmp_path: Path) -> None:
    mine = write_rows(tmp_path / "mine", [correction(KEY, "a", who="me")])
    theirs = write_rows(tmp_path / "theirs", [correction(OTHER, who="ann"), correction(KEY, "a", who="ann")])
    assert merge_files(mine, theirs) == 1
    assert read_corrections(mine).select("key", "who").rows() == [(KEY, "me"), (OTHER, "ann")]
    assert merge_files(mine, theirs) == 0
    # Another tool's file may have its columns in another order.
    reordered = pl.read_parquet(theirs).with_columns(key=pl.col("key") + 10)
    reordered.select(reversed(reordered.columns)).write_parquet(tmp_path / "reordered")
    assert merge_files(mine, tmp_path / "reordered") == 2
    of_another = correction(KEY, "a") | {"sha256": bytes(31) + b"x"}
    write_rows(tmp_path / "foreign", [of_another])
    with pytest.raises(UserError, match=rf"key {KEY}: .*mine and .*foreign mean two images by it"):
        merge_files(mine, tmp_path / "foreign")
    write_rows(tmp_path / "other", [correction(KEY, "b")])
    with pytest.raises(UserError, match=rf"key {KEY}: .*mine says correct to 'a', .*other says correct to 'b'"):
        merge_files(mine, tmp_path / "other")
