from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from selftrain.images import transforms
from selftrain.images.device_noise import noised
from selftrain.images.index import load_index
from selftrain.images.loading import ImageLoader
from selftrain.images.randaugment import Drawn
from selftrain.images.workers import in_order
from selftrain.learning.algorithm import Batch
from selftrain.tables.log_probs import LogProbs
from selftrain.training.batches import Process, TrainingBatches
from selftrain.training.pseudo_labels import PseudoLabels, labeled_as_pool
from selftrain.training.soft_labels import SoftLabels

VIEWS = {"labeled": ("image", "label"), "unlabeled": ("image", "image_weak", "log_probs")}


def batches(corpus: Path, config: Any, process: Process | None = None, seed: int = 0) -> TrainingBatches:
    index = load_index(corpus / "unlabeled")
    log_probs = np.arange(len(index) * 3, dtype=np.float16).reshape(-1, 3)
    epoch = np.repeat(np.arange(len(index), dtype=np.int32), np.arange(len(index)) % 3)
    nobody = np.full(len(index), -1, np.int32)
    soft_labels = SoftLabels(LogProbs(log_probs, None, 3), nobody)
    pseudo_labels = PseudoLabels(index, soft_labels, nobody.copy(), np.ones(len(index), np.float32), epoch)
    return TrainingBatches(config, VIEWS, seed, process or Process(), load_index(corpus / "labeled"), pseudo_labels)


def equal(one: Batch, other: Batch) -> bool:
    return all(torch.equal(one[source][name], other[source][name]) for source in one for name in one[source])


def test_shapes_and_views(photo_corpus: Path, tiny: Any) -> None:
    batch = batches(photo_corpus, tiny(unlabeled_ratio=2))[0]
    assert {name: tuple(value.shape) for name, value in batch["labeled"].items()} == {
        "image": (8, 32, 32, 3),
        "label": (8,),
    }
    assert {name: tuple(value.shape) for name, value in batch["unlabeled"].items()} == {
        "image": (16, 32, 32, 3),
        "image_weak": (16, 32, 32, 3),
        "log_probs": (16, 3),
    }


@pytest.mark.parametrize("workers", [1, 3])
def test_workers_change_nothing_and_any_step_can_be_sought(photo_corpus: Path, tiny: Any, workers: int) -> None:
    made = batches(photo_corpus, tiny(unlabeled_ratio=2))
    loaded = list(in_order(batches(photo_corpus, tiny(unlabeled_ratio=2)), range(2, 7), workers))
    assert len(loaded) == 5
    assert all(equal(batch, made[step]) for step, batch in enumerate(loaded, start=2))
    assert not equal(made[2], made[3])
    assert not equal(made[2], batches(photo_corpus, tiny(unlabeled_ratio=2), seed=1)[2])


@pytest.mark.parametrize("world_size", [2, 4])
def test_processes_see_the_global_batch_between_them(photo_corpus: Path, tiny: Any, world_size: int) -> None:
    config = tiny(unlabeled_ratio=2)
    whole = batches(photo_corpus, config)[3]
    parts = [batches(photo_corpus, config, Process(rank, world_size))[3] for rank in range(world_size)]
    for source, views in whole.items():
        for name, value in views.items():
            assert torch.equal(torch.cat([part[source][name] for part in parts]), value)


def test_every_labeled_image_comes_once_an_epoch_and_copies_as_often_as_they_should(
    photo_corpus: Path, tiny: Any
) -> None:
    made = batches(photo_corpus, tiny(batch_size=6, unlabeled_ratio=5))
    labels = torch.cat([made[step]["labeled"]["label"] for step in range(2)])
    assert sorted(labels.tolist()) == [0] * 4 + [1] * 4 + [2] * 4
    rows = torch.cat([made[step]["unlabeled"]["log_probs"][:, 0] for step in range(1)]) / 3
    counts = np.bincount(rows.long().numpy(), minlength=30)
    assert counts.tolist() == [row % 3 for row in range(30)]


def test_a_copy_comes_with_other_noise(photo_corpus: Path, tiny: Any) -> None:
    made = batches(photo_corpus, tiny(batch_size=6, unlabeled_ratio=5, noise={"randaugment_magnitude": 10}))
    batch = made[0]["unlabeled"]
    pairs = [(batch["log_probs"][:, 0] == row).nonzero().flatten() for row in (6.0, 15.0, 24.0, 33.0, 42.0, 51.0)]
    assert all(len(pair) == 2 for pair in pairs)
    assert any(not torch.equal(batch["image"][a], batch["image"][b]) for a, b in pairs)


@pytest.mark.parametrize("quiet", ["labeled", "unlabeled"])
def test_augmentation_can_be_off_for_one_source(photo_corpus: Path, tiny: Any, quiet: str) -> None:
    noise = {"randaugment_magnitude": 20, "randaugment_ops": 4, "flip": 0.5}
    noisy = batches(photo_corpus, tiny(unlabeled_ratio=2, noise=noise))[1]
    found = batches(photo_corpus, tiny(unlabeled_ratio=2, noise=noise | {f"on_{quiet}": ["dropout"]}))[1]
    plain = batches(photo_corpus, tiny(unlabeled_ratio=2, noise={"randaugment_ops": 0, "flip": 0}))[1]
    for source in ("labeled", "unlabeled"):
        expected = plain if source == quiet else noisy
        assert torch.equal(found[source]["image"], expected[source]["image"])
        assert not torch.equal(noisy[source]["image"], plain[source]["image"])


@pytest.mark.parametrize("source", ["labeled", "unlabeled"])
def test_weak_augmentation_is_the_weak_view(photo_corpus: Path, tiny: Any, source: str) -> None:
    noise = {"randaugment_magnitude": 20, "randaugment_ops": 4, f"on_{source}": ["weak_augmentation"]}
    views = {"labeled": ("image", "image_weak"), "unlabeled": ("image", "image_weak")}
    made = batches(photo_corpus, tiny(unlabeled_ratio=2, noise=noise))
    made.views = views
    for name, batch in made[1].items():
        assert torch.equal(batch["image"], batch["image_weak"]) == (name == source)


def test_lots_are_even_and_of_their_place_in_the_stream(photo_corpus: Path, tiny: Any) -> None:
    made = batches(photo_corpus, tiny(unlabeled_ratio=2))
    made.views = {"labeled": ("uniform",), "unlabeled": ("uniform",)}
    uniforms = torch.cat([made[step]["unlabeled"]["uniform"] for step in range(100)])
    assert len(uniforms.unique()) == 1600
    assert torch.histc(uniforms, 4, 0, 1).div(1600).sub(0.25).abs().max() < 0.04
    assert not set(uniforms.tolist()) & set(made[0]["labeled"]["uniform"].tolist())
    parts = [batches(photo_corpus, tiny(unlabeled_ratio=2), Process(rank, 2)) for rank in (0, 1)]
    for part in parts:
        part.views = made.views
    assert torch.equal(torch.cat([part[3]["unlabeled"]["uniform"] for part in parts]), made[3]["unlabeled"]["uniform"])


def test_unlabeled_images_have_no_label_but_a_persons(photo_corpus: Path, tiny: Any) -> None:
    made = batches(photo_corpus, tiny(unlabeled_ratio=2))
    assert made.pseudo_labels is not None
    made.pseudo_labels.known[:] = np.arange(30) % 5 - 1
    made.pseudo_labels.weights[:] = np.arange(30) / 30
    made.views = {"unlabeled": ("log_probs", "label", "weight")}
    found = made[0]["unlabeled"]
    torch.testing.assert_close(found["weight"], found["log_probs"][:, 0].float() / 3 / 30)
    assert torch.equal(found["label"], (found["log_probs"][:, 0] / 3).long() % 5 - 1)


def test_labeled_images_as_a_pool_are_their_own_prediction(photo_corpus: Path) -> None:
    index = load_index(photo_corpus / "labeled")
    pool = labeled_as_pool(index, 3)
    assert pool.soft_labels is not None
    assert np.array_equal(np.exp(pool.soft_labels[:].astype(float)), np.eye(3)[index.labels])
    assert set(pool.known) == {-1}
    assert pool.epoch.tolist() == list(range(12))


def test_sample_pairing_mixes_in_images_of_the_source(
    photo_corpus: Path, tiny: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    operation = Drawn("sample_pairing", 1.0, x=0.4)
    monkeypatch.setattr("selftrain.images.views.drawn", lambda *given: (operation,))
    made = batches(photo_corpus, tiny(unlabeled_ratio=2, noise={"flip": 0}))[1]
    clean = batches(photo_corpus, tiny(unlabeled_ratio=2, noise={"flip": 0, "randaugment_ops": 0, "on_labeled": []}))[1]
    labeled = ImageLoader(load_index(photo_corpus / "labeled"))
    partner = np.asarray(transforms.clean(labeled.image(int(0.4 * len(labeled.index))), 32)).astype(float)
    expected = 0.6 * clean["labeled"]["image"].numpy() + 0.4 * partner
    assert np.abs(made["labeled"]["image"].numpy() - expected).max() <= 1


def test_noise_on_the_device_is_the_loaders(photo_corpus: Path, tiny: Any) -> None:
    noise = {"randaugment_magnitude": 9, "shift": 0.1, "random_crop": [0.5, 1.0]}
    by_loader = batches(photo_corpus, tiny(unlabeled_ratio=2, noise=noise))[1]
    by_device = batches(photo_corpus, tiny(unlabeled_ratio=2, noise=noise | {"on_device": True}))[1]
    for source, name in (("labeled", "image"), ("unlabeled", "image"), ("unlabeled", "image_weak")):
        made = noised(by_device[source][name], by_device[source][f"{name}/plan"])
        differ = (made - by_loader[source][name].float()).abs().amax(dim=3) > 8
        assert differ.float().mean() < 0.1
        assert not torch.equal(by_device[source][name], by_loader[source][name])
