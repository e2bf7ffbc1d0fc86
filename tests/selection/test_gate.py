"""The gate, against what its definition says of embeddings that are drawn from three classes."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from sklearn.covariance import LedoitWolf

import selftrain as st
from selftrain.plumbing.errors import UserError
from selftrain.tables.embeddings import Embeddings, embeddings_folder, write_embeddings
from tests.selection.rounds import Round, drawn, write_labels, write_table


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
