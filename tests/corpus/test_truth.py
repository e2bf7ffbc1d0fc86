"""What is known of the pool's classes, and of test images with several."""

import json
from pathlib import Path

import polars as pl
import pytest

from selftrain.corpus.ingest import ingest
from selftrain.plumbing.errors import UserError
from selftrain.tables.manifest import read_manifest
from selftrain.tables.multi_labels import read_multi_labels
from tests.conftest import MakeConfig
from tests.corpus.manifests import keys_of


def test_truth_is_matched_by_file(ingest_config: MakeConfig, photos: Path, tmp_path: Path) -> None:
    (photos / "truth.csv").write_text('file,label\npool/50-003.png,owl\npool/50-001.png,\npool/50-002.png,""\n')
    ingest(ingest_config(truth="truth.csv"), 0, tmp_path / "corpus")
    keys = keys_of(tmp_path / "corpus", "unlabeled")
    truth = dict(pl.read_parquet(tmp_path / "corpus" / "truth.parquet").rows())
    assert truth == {keys["pool/50-003.png"]: 2, keys["pool/50-001.png"]: -1, keys["pool/50-002.png"]: -1}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file,label\npool/50-003.png,cow\n", "'cow', the label of pool/50-003.png, is not a class"),
        ("file,label\npool/gone.png,cat\n", "pool/gone.png is not among the unlabeled images"),
        ("name,label\n", "expected the columns file,label; found name,label"),
        ("file,label\npool/0-000.png,cat\npool/0-000.png,dog\n", "0-000.png has the labels 'cat' and 'dog'; keep one"),
        ("file,label\npool/0-000.png,cat\n,cat\n", "row 3 names no file"),
        ("", "not a CSV in UTF-8"),
        ("file,label\na,b,c,d\n", "not a CSV in UTF-8"),
    ],
)
def test_wrong_truth_is_an_error(
    ingest_config: MakeConfig, photos: Path, tmp_path: Path, text: str, message: str
) -> None:
    (photos / "truth.csv").write_text(text)
    with pytest.raises(UserError, match=message):
        ingest(ingest_config(truth="truth.csv"), 0, tmp_path / "corpus")


def test_test_images_may_have_several_right_classes(ingest_config: MakeConfig, photos: Path, tmp_path: Path) -> None:
    corpus = tmp_path / "corpus"
    ingest(ingest_config(), 0, corpus)
    keys = keys_of(corpus, "test")
    one, other, third = sorted(keys)[:3]
    (photos / "real.csv").write_text(f"file,label\n{one},cat\n{one},owl\n{other},dog\n{other},dog\n{third},\n")
    ingest(ingest_config(multi_labels="real.csv", max_quarantined=0.5), 0, corpus)
    found = read_multi_labels(corpus / "test")
    assert found is not None
    assert set(found.rows()) == {(keys[one], 0), (keys[one], 2), (keys[other], 1)}
    assert json.loads((corpus / "summary.json").read_text())["test"]["multi_labeled"] == 2
    (photos / one).write_bytes(b"no image")
    ingest(ingest_config(multi_labels="real.csv", max_quarantined=0.5), 0, corpus)
    assert set(read_multi_labels(corpus / "test").rows()) == {(keys[other], 1)}  # type: ignore[union-attr]
    (photos / "real.csv").write_text("file,label\npool/50-003.png,cat\n")
    with pytest.raises(UserError, match="pool/50-003.png is not among the test images"):
        ingest(ingest_config(multi_labels="real.csv", max_quarantined=0.5), 0, corpus)
    (photos / "real.csv").write_text(f"file,label\n{one},cow\n")
    with pytest.raises(UserError, match=f"'cow', a label of {one}, is not a class"):
        ingest(ingest_config(multi_labels="real.csv", max_quarantined=0.5), 0, corpus)
    with pytest.raises(UserError, match="correct `ingest.multi_labels`"):
        ingest(ingest_config(multi_labels="none.csv", max_quarantined=0.5), 0, corpus)
    ingest(ingest_config(max_quarantined=0.5), 0, corpus)
    assert read_multi_labels(corpus / "test") is None


def test_a_pool_cut_from_labeled_images_forgets_their_classes_and_truth_keeps_them(
    ingest_config: MakeConfig, tmp_path: Path
) -> None:
    ingest(ingest_config(unlabeled={"cut_from": "labeled", "share": 0.5}), 0, tmp_path / "corpus")
    rows = read_manifest(tmp_path / "corpus" / "unlabeled", ["key", "source", "label"]).to_pylist()
    assert [row["label"] for row in rows] == [None] * 6
    truth = dict(pl.read_parquet(tmp_path / "corpus" / "truth.parquet").rows())
    assert truth == {row["key"]: ["cat", "dog", "owl"].index(row["source"].split("/")[1]) for row in rows}
