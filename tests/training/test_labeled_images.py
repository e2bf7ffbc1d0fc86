from pathlib import Path

import numpy as np
import pytest

from selftrain.evaluation.robustness.images import sampled
from selftrain.images.index import load_index, load_splits
from selftrain.images.loading import ImageLoader
from selftrain.params.train import Resplit
from selftrain.training.labeled_images import labeled_and_validation


def test_a_cut_of_ones_own_is_whole_stratified_and_keyed_by_the_seed(digits_corpus: Path) -> None:
    resplit = Resplit(splits=("labeled", "validation", "test"), validation=0.3)
    trained, held_out = labeled_and_validation(digits_corpus, resplit, 0)
    assert sorted([*trained.keys, *held_out.keys]) == sorted(load_splits(digits_corpus, resplit.splits).keys)
    assert len(trained) + len(held_out) == 120
    assert set(np.bincount(held_out.labels)) == {4}  # 0.3 of twelve a class, rounded
    again, _ = labeled_and_validation(digits_corpus, resplit, 0)
    other, _ = labeled_and_validation(digits_corpus, resplit, 1)
    assert np.array_equal(trained.keys, again.keys)
    assert not np.array_equal(trained.keys, other.keys)


def test_what_a_resplit_holds_out_says_nothing_of_the_robustness_subset(digits_corpus: Path) -> None:
    splits = ("labeled", "validation", "test")
    everything = load_splits(digits_corpus, splits)
    shares = []
    for seed in range(40):
        trained, _ = labeled_and_validation(digits_corpus, Resplit(splits=splits, validation=0.3), seed)
        subset = sampled(everything, 30, seed)
        shares.append(float(np.isin(subset.keys, trained.keys).mean()))
    assert np.mean(shares) == pytest.approx(2 / 3, abs=0.05), "four of twelve images a class are held out"
    assert min(shares) > 0.3


def test_an_index_over_several_splits_leads_to_the_same_images(digits_corpus: Path) -> None:
    together = ImageLoader(load_splits(digits_corpus, ["validation", "labeled"]))
    place = 0
    for split in ("validation", "labeled"):
        alone = ImageLoader(load_index(digits_corpus / split))
        for row in range(len(alone.index)):
            assert together.index.keys[place] == alone.index.keys[row]
            assert together.image(place).tobytes() == alone.image(row).tobytes()
            place += 1
    assert place == len(together.index)


def test_the_pool_cannot_be_thrown_in() -> None:
    with pytest.raises(ValueError, match="some of labeled, validation, test"):
        Resplit(splits=("labeled", "unlabeled"), validation=0.3)
