"""What is selected by each class's own probability, prior or share of the labeled images."""

import math
from collections import Counter
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from selftrain.calibration import shift_log_probs
from selftrain.plumbing.errors import UserError
from selftrain.selection.balance import tail_shares
from selftrain.tables.keys import shard_of_part
from selftrain.tables.predictions import prediction_parts, read_part, write_part
from tests.selection.rounds import Round, drawn, write_labels
from tests.selection.tables import CLASSES


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
