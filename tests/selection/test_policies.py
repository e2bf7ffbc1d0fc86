"""Each policy and the gate, against what their definitions say of tables that are small enough to see through."""

import math
from collections import Counter
from pathlib import Path

import numpy as np
import polars as pl
import pytest

import selftrain as st
from selftrain.calibration import fit_trust
from selftrain.plumbing.errors import UserError
from selftrain.tables.embeddings import Embeddings, embeddings_folder, write_embeddings
from tests.selection.rounds import SHARD, Round, drawn, write_table
from tests.selection.tables import CLASSES


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
    for kind in (pl.Float64, pl.String):
        with pytest.raises(UserError, match=f"log_probs: lists or arrays of numbers, or a table's bytes, not {kind}"):
            st.select(frame.with_columns(log_probs=pl.lit(0).cast(kind)), policy="adaptive")
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
