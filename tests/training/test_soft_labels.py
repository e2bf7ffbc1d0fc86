import numpy as np
import pytest

from selftrain.tables.log_probs import likeliest
from selftrain.training.soft_labels import LogProbsColumn, SoftLabels, of_labels


def drawn(images: int, num_classes: int) -> np.ndarray:
    probs = np.random.default_rng(1).dirichlet(np.ones(num_classes), images)
    return np.log(probs).astype(np.float16)


@pytest.mark.parametrize("top_k", [None, 2])
def test_the_teachers_word_aligned_and_a_persons_as_it_is(top_k: int | None) -> None:
    kept = likeliest(drawn(8, 5), top_k)
    shift = np.log(np.array([0.1, 1.0, 2.0, 0.5, 3.0]))
    certain = np.array([-1, -1, 3, -1, 0, -1, -1, -1], np.int32)
    rows = np.array([2, 7, 1, 4])
    found = SoftLabels(kept, certain, shift)[rows]
    aligned = np.exp(kept.of_all_classes().astype(float)) * np.exp(shift)
    aligned /= aligned.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(np.exp(found[1:3].astype(float)), aligned[[7, 1]], rtol=5e-3)
    assert np.exp(found[[0, 3]].astype(float)).tolist() == np.eye(5)[[3, 0]].tolist()
    plain = SoftLabels(kept, certain)[rows]
    assert np.array_equal(plain[1:3], kept.of_all_classes()[[7, 1]])
    assert np.array_equal(SoftLabels(kept, certain)[:], SoftLabels(kept, certain)[np.arange(8)])


def test_labels_are_certain() -> None:
    assert np.exp(of_labels(np.array([2, 0], np.int32), 300)[:].astype(float)).tolist() == np.eye(300)[[2, 0]].tolist()


@pytest.mark.parametrize("top_k", [None, 3])
def test_parts_are_gathered_as_they_are_kept(top_k: int | None, monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("selftrain.plumbing.columns.IN_MEMORY", 1000)
    log_probs = drawn(400, 12)
    column = LogProbsColumn(likeliest(log_probs[:1], top_k))
    for start in range(0, 400, 150):
        column.append(likeliest(log_probs[start : start + 150], top_k))
    found = column.log_probs()
    assert isinstance(found.values, np.memmap)
    assert np.array_equal(found.of_all_classes(), likeliest(log_probs, top_k).of_all_classes())
