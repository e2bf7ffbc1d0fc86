"""Each policy and the gate, against what their definitions say of tables that are small enough to see through."""

import math
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from scipy.special import softmax
from sklearn.covariance import LedoitWolf

import selftrain as st
from selftrain.calibration import fit_trust, shift_log_probs
from selftrain.params.select import SelectConfig
from selftrain.plumbing.errors import UserError
from selftrain.plumbing.files import read_json
from selftrain.selection.balance import tail_shares
from selftrain.selection.select import select
from selftrain.tables.embeddings import Embeddings, embeddings_folder, write_embeddings
from selftrain.tables.keys import make_key, part_name, shard_of_part
from selftrain.tables.manifest import manifest_schema
from selftrain.tables.parquet import write_arrow
from selftrain.tables.predictions import PredictionPart, prediction_parts, read_part, write_part
from selftrain.tables.selection import scan_selection
from tests.selection.test_select import CLASSES, write_corpus

SHARD = 400


def write_table(folder: Path, split: str, probs: np.ndarray) -> np.ndarray:
    """A prediction table of probabilities (N, C); returns the keys."""
    keys = np.array([make_key(split, number // SHARD, number % SHARD) for number in range(len(probs))])
    for shard in range(math.ceil(len(probs) / SHARD)):
        some = slice(shard * SHARD, (shard + 1) * SHARD)
        of_part = probs[some]
        labels, confidences = of_part.argmax(1).astype(np.int32), of_part.max(1).astype(np.float32)
        log_probs = np.log(of_part).astype(np.float16)
        write_part(folder / split, shard, PredictionPart(keys[some], labels, confidences, log_probs), CLASSES, "test")
    return keys


def write_labels(corpus: Path, keys: np.ndarray, labels: np.ndarray, split: str = "validation") -> None:
    folder = corpus / split / "manifest"
    folder.mkdir(parents=True)
    schema = pa.schema([manifest_schema().field("key"), manifest_schema().field("label")])
    write_arrow(pa.table({"key": keys, "label": labels.astype(np.int32)}, schema), folder / part_name(0))


def drawn(count: int, seed: int, overconfident: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """(probabilities that a teacher says, true labels); it says p^overconfident, and p is true."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 1.6, (count, len(CLASSES))) + np.array([1.0, 0.0, -1.5])
    true = softmax(logits, axis=1)
    labels = (rng.random(count)[:, None] > true.cumsum(axis=1)).sum(axis=1)
    return softmax(overconfident * logits, axis=1), labels


class Round:
    """A teacher's tables, the corpus beside them, and what is selected from them."""

    def __init__(self, folder: Path, probs: np.ndarray, validation: np.ndarray, truth: np.ndarray) -> None:
        self.folder = folder
        self.keys = write_table(folder / "teacher", "unlabeled", probs)
        self.corpus = write_corpus(folder / "corpus", {}, self.keys.tolist())
        # Validation is written in one part.
        keys = np.array([make_key("validation", 0, number) for number in range(len(validation))])
        labels, confidences = validation.argmax(1).astype(np.int32), validation.max(1).astype(np.float32)
        part = PredictionPart(keys, labels, confidences, np.log(validation).astype(np.float16))
        write_part(folder / "teacher" / "validation", 0, part, CLASSES, "test")
        write_labels(self.corpus, keys, truth)

    def select(self, earlier: tuple[Path, ...] = (), **config: Any) -> pl.DataFrame:
        values = SelectConfig.model_validate({"per_class": "all"} | config)
        table = self.folder / "teacher" / "unlabeled"
        self.summary = select(values, 0, table, self.corpus, self.folder / "out", earlier=earlier)
        assert self.summary == read_json(self.folder / "out" / "summary.json", "")
        return scan_selection(self.folder / "out").collect().sort("key")


@pytest.mark.parametrize("overconfident", [1.0, 2.5])
def test_precision_takes_as_many_labels_as_are_right_often_enough(tmp_path: Path, overconfident: float) -> None:
    probs, truth = drawn(6000, 0, overconfident)
    validation, labels = drawn(800, 1, overconfident)
    round_ = Round(tmp_path, probs, validation, labels)
    rows = round_.select(policy="precision", precision=0.9)
    kept = (rows["decision"] == "kept").to_numpy()
    right = probs.argmax(1) == truth
    cutoffs = round_.summary["policy"]["cutoffs"]
    trust = fit_trust(validation.max(1).astype(np.float32), validation.argmax(1) == labels)
    for label, name in enumerate(CLASSES):
        of_class = probs.argmax(1) == label
        found = cutoffs[name]
        # The definition: the lowest cut-off at which the mean chance of what is above reaches the target.
        chances = trust.right(probs.max(1)[of_class])
        order = np.argsort(-probs.max(1)[of_class])
        means = chances[order].cumsum() / np.arange(1, of_class.sum() + 1)
        count = int((means >= 0.9).sum())
        assert found["images"] == (kept & of_class).sum() == pytest.approx(count, rel=0.06, abs=3)
        assert found["low"] <= found["expected_precision"] <= found["high"]
        assert found["expected_precision"] >= 0.9
        assert right[kept & of_class].mean() == pytest.approx(0.9, abs=0.05)
    assert round_.summary["threshold"] == min(found["cutoff"] for found in cutoffs.values())
    assert right.mean() < 0.8, "the target was not reached by taking everything"


def test_a_class_that_cannot_reach_the_precision_contributes_nothing(tmp_path: Path) -> None:
    probs, _ = drawn(2000, 0)
    # Whatever the teacher says is class 2 is said with little confidence.
    weak = probs.argmax(1) == 2
    probs[weak] = [0.3, 0.2, 0.5]
    round_ = Round(tmp_path, probs, *drawn(800, 1))
    rows = round_.select(policy="precision", precision=0.95)
    kept = rows.filter(pl.col("decision") == "kept")
    assert set(kept["label"].unique()) == {0, 1}
    assert round_.summary["policy"]["cutoffs"]["c"] == {"cutoff": None, "images": 0}
    with pytest.raises(UserError, match=r"policy precision, cut-off 1.* leaves no image"):
        round_.select(policy="precision", precision=0.99999)


def test_adaptive_thresholds_by_hand(tmp_path: Path) -> None:
    probs = np.array([[0.8, 0.1, 0.1], [0.7, 0.2, 0.1], [0.3, 0.6, 0.1], [0.45, 0.35, 0.2], [0.2, 0.2, 0.6]])
    # Mean confidence 0.63, mean probabilities 0.49, 0.29, 0.22: cut-offs 0.63, 0.373, 0.283.
    round_ = Round(tmp_path, probs, *drawn(20, 1))
    rows = round_.select(policy="adaptive")
    assert (rows["decision"] == "kept").to_list() == [True, True, True, False, True]
    found = [round_.summary["policy"]["cutoffs"][name] for name in CLASSES]
    assert found == pytest.approx([0.63, 0.63 * 0.29 / 0.49, 0.63 * 0.22 / 0.49], rel=2e-3)
    frame = pl.DataFrame(
        {"key": [1, 2], "label": [0, 1], "confidence": [0.9, 0.6], "log_probs": [
            np.log(np.array(row)).astype(np.float16).tobytes() for row in ([0.9, 0.1], [0.4, 0.6])
        ]}
    )  # fmt: skip
    assert st.select(frame, policy="adaptive", per_class="all")["decision"].to_list() == ["kept", "kept"]
    listed = frame.with_columns(log_probs=pl.Series([[np.log(0.9), np.log(0.1)], [np.log(0.4), np.log(0.6)]]))
    for numbers in (listed, listed.with_columns(pl.col("log_probs").list.to_array(2).cast(pl.Array(pl.Float32, 2)))):
        assert st.select(numbers, policy="adaptive", per_class="all").equals(
            st.select(frame, policy="adaptive", per_class="all")
        )
        assert st.select(numbers, policy="class_probability", per_class=1)["copies"].to_list() == [1, 1]
        assert len(st.select(numbers.head(0), prior="uniform")) == 0
    for wrong, row in (
        (pl.Series([[-0.1, -2.3], [-0.9]]), 1),
        (pl.Series([None, [-0.1, -2.3]]), 0),
        (pl.Series([[-0.1, -2.3], None], dtype=pl.Array(pl.Float32, 2)), 1),
        (pl.Series([b"\0\0\0\0", b"\0\0"]), 1),
        (pl.Series([b"\0\0\0", b"\0\0\0"]), 0),
    ):
        with pytest.raises(UserError, match=f"log_probs: row {row} has not as many numbers as others"):
            st.select(frame.with_columns(log_probs=wrong), policy="adaptive")
    for column, value, said in (
        ("key", 1, "row 0: its key is that of another row too"),
        ("label", -1, "row 1: its label is no class's index"),
        ("confidence", 1.5, "row 1: its confidence is not from 0 to 1"),
        ("confidence", None, "row 1: its key, label or confidence is empty"),
    ):
        changed = frame.with_columns(pl.Series(column, [frame[column][0], value], dtype=frame[column].dtype))
        with pytest.raises(UserError, match=said):
            st.select(changed)
    with pytest.raises(UserError, match="keys and labels are whole numbers"):
        st.select(frame.with_columns(label=pl.Series(["cat", "dog"])))
    with pytest.raises(UserError, match="has no column 'confidence'"):
        st.select(frame.drop("confidence"))
    unknown = frame.with_columns(confidence=pl.lit(math.nan))
    assert st.select(unknown, policy="adaptive")["decision"].to_list() == ["low_confidence"] * 2
    with pytest.raises(UserError, match="take `Run.predictions` of it"):
        st.select(frame.with_columns(classes=pl.lit(b"")), policy="adaptive")
    with pytest.raises(UserError, match="reads the column 'log_probs'"):
        st.select(frame.drop("log_probs"), policy="adaptive")


def test_rounds_that_disagree(tmp_path: Path) -> None:
    probs = np.tile([0.9, 0.05, 0.05], (6, 1))
    probs[5] = [0.4, 0.3, 0.3]
    round_ = Round(tmp_path, probs, *drawn(20, 1))
    first, second = probs.copy(), probs.copy()
    first[[1, 5]] = [0.1, 0.8, 0.1]
    second[2] = [0.1, 0.1, 0.8]
    for name, of_round in (("first", first), ("second", second)):
        write_table(tmp_path / name, "unlabeled", of_round)
    earlier = (tmp_path / "second" / "unlabeled", tmp_path / "first" / "unlabeled")
    rows = round_.select(policy="agreement", threshold=0.5, earlier=earlier)
    assert rows["decision"].to_list() == ["kept", "disagreement", "disagreement", "kept", "kept", "low_confidence"]
    assert round_.summary["decisions"]["disagreement"] == 2
    assert Counter(round_.select(policy="agreement", threshold=0.5)["decision"])["kept"] == 5, "nobody disagrees yet"


def test_neighbours_carry_the_label(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    probs, _ = drawn(700, 0)
    round_ = Round(tmp_path, probs, *drawn(20, 1))
    vectors = rng.normal(size=(700, 5)).astype(np.float16)
    for shard in range(2):
        some = slice(shard * SHARD, (shard + 1) * SHARD)
        write_embeddings(
            embeddings_folder(tmp_path / "teacher"), shard, Embeddings(round_.keys[some], vectors[some]), "test"
        )
    rows = round_.select(policy="neighbours", neighbours=7, threshold=0.4)
    unit = vectors.astype(np.float64) / np.linalg.norm(vectors.astype(np.float64), axis=1, keepdims=True)
    labels = probs.argmax(1)
    for place, decision in enumerate(rows["decision"]):
        likeness = unit @ unit[place]
        likeness[place] = -2
        share = (labels[np.argsort(-likeness)[:7]] == labels[place]).mean()
        sure = np.float32(probs[place].max()) > np.float32(0.4)
        assert decision == ("low_confidence" if not sure else "kept" if share >= 0.5 else "lonely"), place
    with pytest.raises(UserError, match="needs embeddings"):
        st.select(rows.select("key", "label", "confidence"), policy="neighbours")


def gaussian(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """(embeddings of three classes with one covariance, far from round; their labels)."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, count)
    means = np.array([[4, 0, 0, 0], [0, 4, 0, 0], [0, 0, 4, 0]])
    return means[labels] + rng.normal(size=(count, 4)) * [0.3, 0.3, 0.3, 2.0], labels


def test_the_gate_is_the_first_teachers(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    sure = rng.uniform(0.4, 0.99, (340, 1))
    probs = np.tile([0.9, 0.05, 0.05], (300, 1))
    round_ = Round(tmp_path, probs, *drawn(40, 1))
    first = np.concatenate([sure, (1 - sure) / 2, (1 - sure) / 2], axis=1)
    write_table(tmp_path / "first", "unlabeled", first[:300])
    write_table(tmp_path / "first", "validation", first[300:])
    vectors, _ = gaussian(300, 1)
    # Ten strangers lie along a short axis of the classes; ten others lie as far along the long one, which is usual.
    vectors[:10] += [0, 0, 0, 0] + np.eye(4)[0] * 2.5
    vectors[10:20, 3] = 3.0
    vectors = vectors.astype(np.float16)
    labeled, labels = gaussian(60, 2)
    validation, _ = gaussian(40, 3)
    write_labels(round_.corpus, np.arange(60), labels, "labeled")
    for split, of_split in (("unlabeled", vectors), ("labeled", labeled), ("validation", validation)):
        keys = round_.keys if split == "unlabeled" else np.arange(len(of_split))
        folder = embeddings_folder(tmp_path / "first", split)
        write_embeddings(folder, 0, Embeddings(keys, of_split.astype(np.float16)), "test")
    rows = round_.select(gate=0.2, threshold=0.5, earlier=(tmp_path / "first" / "unlabeled",))

    # By hand: scikit-learn's covariance, its inverse, a loop.
    means = [labeled.astype(np.float16)[labels == label].astype(float).mean(axis=0) for label in range(3)]
    residuals = labeled.astype(np.float16).astype(float) - np.array(means)[labels]
    inverse = LedoitWolf(assume_centered=True).fit(residuals).precision_

    def distance(vector: np.ndarray) -> float:
        return min(float((vector - mean) @ inverse @ (vector - mean)) for mean in means)

    known = [
        (float(c), distance(v.astype(np.float16).astype(float)))
        for c, v in zip(first[300:, 0], validation, strict=True)
    ]

    def rank(confidence: float, far: float) -> float:
        return min(sum(c <= confidence for c, _ in known), sum(d >= far for _, d in known)) / len(known)

    cutoff = np.quantile([rank(*one) for one in known], 0.2)
    ranks = [rank(float(c), distance(v.astype(float))) for c, v in zip(first[:300, 0], vectors, strict=True)]
    wanted = ["out_of_domain" if one < cutoff else "kept" for one in ranks]
    agree = np.mean([a == b for a, b in zip(rows["decision"], wanted, strict=True)])
    assert agree > 0.99, "but for ties in the last bit"
    assert rows["decision"].to_list()[:10] == ["out_of_domain"] * 10
    assert rows["decision"].to_list()[10:20].count("kept") >= 5
    assert round_.summary["policy"]["gate"] == pytest.approx(cutoff, abs=0.03)
    shutil.rmtree(embeddings_folder(tmp_path / "first", "validation"))
    with pytest.raises(UserError, match="has no embeddings, which `select.gate` needs; set `predict.embeddings: true`"):
        round_.select(gate=0.2, earlier=(tmp_path / "first" / "unlabeled",))
    with pytest.raises(UserError, match=r"select.gate: it needs validation images"):
        st.select(rows.select("key", "label", "confidence"), gate=0.1)


def test_the_images_likeliest_of_each_class_serve_every_class_that_they_are_among(tmp_path: Path) -> None:
    probs, _ = drawn(900, 0)
    validation, labels = drawn(50, 1)
    round_ = Round(tmp_path, probs, validation, labels)
    rows = round_.select(policy="class_probability", per_class=400)
    held = np.log(probs).astype(np.float16)
    by_hand: Counter[int] = Counter()
    for label in range(len(CLASSES)):
        # Of images with the same float16 the first are in.
        by_hand.update(sorted(range(900), key=lambda number: (-held[number, label], number))[:400])
    assert rows["copies"].to_list() == [by_hand[number] for number in range(900)]
    assert rows["decision"].to_list() == ["kept" if by_hand[number] else "low_confidence" for number in range(900)]
    assert max(by_hand.values()) > 1, "an image with two likely classes serves both"
    assert round_.summary["balanced_images"] == 1200
    sampled = round_.select(policy="class_probability", per_class=40, share=0.3)
    assert sampled["copies"].sum() == 120, "as many of a share of the pool"
    assert sampled["decision"].to_list().count("not_sampled") > 500
    whole = round_.select(policy="class_probability", per_class=20)["copies"].to_list()
    for part in prediction_parts(tmp_path / "teacher" / "unlabeled"):
        made = read_part(part)
        write_part(part.parent, shard_of_part(part.name), made, CLASSES, "test", top_k=1)
    assert round_.select(policy="class_probability", per_class=20)["copies"].to_list() == whole
    few = r"only \d+ that may be chosen have a probability of the class number 2 in the table; set `predict.top_k`"
    with pytest.raises(UserError, match=few):
        round_.select(policy="class_probability", per_class=400)
    half = int((held.argmax(axis=1) == 2).sum()) // 2
    round_.select(policy="class_probability", per_class=half)
    with pytest.raises(UserError, match=few):
        round_.select(policy="class_probability", per_class=half, share=0.2)
    with pytest.raises(UserError, match="class_probability needs a number, found auto"):
        round_.select(policy="class_probability", per_class="auto")


@pytest.mark.parametrize(("prior", "exponent", "target"), [("uniform", 1.0, [1, 1, 1]), ("labeled", 0.5, [3, 2, 1])])
def test_aligned_predictions_have_the_priors_shares(
    tmp_path: Path, prior: str, exponent: float, target: list[int]
) -> None:
    probs, _ = drawn(3000, 0)
    validation, labels = drawn(50, 1)
    round_ = Round(tmp_path, probs, validation, labels)
    write_labels(round_.corpus, np.arange(14), np.repeat([0, 1, 2], [9, 4, 1]), "labeled")
    rows = round_.select(threshold=0, prior=prior, prior_exponent=exponent, weight="confidence")
    wanted = probs * (np.array(target) / sum(target)) / probs.astype(np.float64).mean(axis=0)
    wanted /= wanted.sum(axis=1, keepdims=True)
    assert (rows["label"].to_numpy() == wanted.argmax(axis=1)).mean() > 0.998
    np.testing.assert_allclose(rows["confidence"].to_numpy(), wanted.max(axis=1), atol=3e-3)
    assert rows["weight"].equals(rows["confidence"].alias("weight"))
    before, after = probs.mean(axis=0), wanted.mean(axis=0)
    assert np.abs(after - np.array(target) / sum(target)).max() < np.abs(before - np.array(target) / sum(target)).max()
    # What is trained on is shifted by the same.
    shifted = shift_log_probs(np.log(probs), np.array(round_.summary["shift"]))
    np.testing.assert_allclose(np.exp(shifted), wanted, atol=3e-3)


def test_crests_share_of_each_class_by_its_rank_among_the_labeled(tmp_path: Path) -> None:
    np.testing.assert_allclose(tail_shares(np.array([10, 1000, 100]), 1 / 3), [1, 0.01 ** (1 / 3), 0.1 ** (1 / 3)])
    probs, _ = drawn(900, 0)
    validation, labels = drawn(50, 1)
    round_ = Round(tmp_path, probs, validation, labels)
    write_labels(round_.corpus, np.arange(21), np.repeat([0, 1, 2], [16, 4, 1]), "labeled")
    rows = round_.select(threshold=0, tail_exponent=0.5)
    for label, share in enumerate([0.25, 0.5, 1]):
        of_class = rows.filter(pl.col("label") == label).sort("confidence", descending=True)
        count = math.ceil(share * len(of_class))
        assert of_class["decision"].to_list() == ["kept"] * count + ["over_quota"] * (len(of_class) - count)
    rows = round_.select(threshold=0, tail_exponent=0.5, per_class=150, max_copies=10)
    for label in range(3):
        of_class = rows.filter((pl.col("label") == label) & (pl.col("decision") == "kept"))
        assert of_class["copies"].sum() == 150, "extra copies are of images that are kept"
