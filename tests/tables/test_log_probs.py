from pathlib import Path

import numpy as np
import pytest

from selftrain.tables import predictions as table
from selftrain.tables.keys import make_key
from selftrain.tables.log_probs import likeliest
from selftrain.tables.predictions import PredictionPart


def drawn(images: int, num_classes: int, spread: float = 3.0) -> np.ndarray:
    logits = np.random.default_rng(0).normal(0, spread, (images, num_classes))
    return (logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))).astype(np.float16)


@pytest.mark.parametrize("num_classes", [5, 300])
@pytest.mark.parametrize("top_k", [1, 3])
def test_the_likeliest_are_kept_and_the_others_share_the_rest(num_classes: int, top_k: int) -> None:
    log_probs = drawn(40, num_classes)
    log_probs[0] = log_probs[0, 0]  # all are equal
    log_probs[1, 1:] = log_probs[1].min()
    found = likeliest(log_probs, top_k)
    assert found.classes is not None
    assert found.classes.dtype == (np.uint8 if num_classes == 5 else np.uint16)
    every = found.of_all_classes()
    for row, kept, values, classes in zip(log_probs.astype(float), every, found.values, found.classes, strict=True):
        best = sorted(range(num_classes), key=lambda label: (-row[label], label))
        assert classes.tolist() == best[:top_k]
        assert values[:-1].tolist() == kept[best[:top_k]].tolist() == row[best[:top_k]].tolist()
        rest = np.exp(row[best[top_k:]]).mean()
        np.testing.assert_allclose(np.exp(kept[best[top_k:]].astype(float)), rest, rtol=5e-3)
        assert kept.argmax() == row.argmax()
    np.testing.assert_allclose(
        np.exp(every.astype(float)).sum(axis=1), np.exp(log_probs.astype(float)).sum(axis=1), rtol=2e-3
    )


def test_all_classes_or_all_but_one_lose_nothing() -> None:
    log_probs = drawn(30, 7)
    log_probs[0, 2:] = -65504  # as far as float16 goes
    log_probs[1, 0] = 0
    for top_k in (None, 6, 7, 100):
        found = likeliest(log_probs, top_k)
        assert (found.classes is None) == (top_k != 6)
        assert np.array_equal(found.of_all_classes(), log_probs)


def test_some_images_are_those_images() -> None:
    found = likeliest(drawn(9, 12), 4)
    rows = np.array([8, 0, 0])
    assert np.array_equal(found[rows].of_all_classes(), found.of_all_classes()[rows])
    assert len(found[:5]) == 5


@pytest.mark.parametrize(("num_classes", "top_k", "limit"), [(1000, 20, 100), (21_841, 20, 100), (10, None, 35)])
def test_a_table_takes_so_many_bytes_an_image(tmp_path: Path, num_classes: int, top_k: int, limit: int) -> None:
    rows = 2000
    log_probs = drawn(rows, num_classes, 2.0)
    keys = np.int64(make_key("unlabeled", 0, 0)) + np.arange(rows)
    labels, confidences = log_probs.argmax(1).astype(np.int32), np.exp(log_probs.max(1).astype(np.float32))
    part = PredictionPart(keys, labels, confidences, log_probs)
    names = [str(label) for label in range(num_classes)]
    table.write_part(tmp_path, 0, part, names, "x", top_k=top_k)
    table.write_part(tmp_path, 1, PredictionPart(keys[:0], labels[:0], confidences[:0], log_probs[:0]), names, "x")
    written, without_rows = (path.stat().st_size for path in table.prediction_parts(tmp_path))
    assert (written - without_rows) / rows <= limit
    kept, whole = table.read_log_probs(table.prediction_parts(tmp_path)[0]), likeliest(log_probs, top_k)
    assert np.array_equal(kept.values, whole.values)
    assert np.array_equal(kept.of_all_classes(), whole.of_all_classes())
    assert np.array_equal(table.read_part(table.prediction_parts(tmp_path)[0]).log_probs, whole.of_all_classes())
