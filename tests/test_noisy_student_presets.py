"""Noisy Student's presets against its paper and its authors' scripts."""

import pytest

from selftrain.params.runs import all_runs, run_entry, train_config
from selftrain.params.select import select_config
from selftrain.params.train import phases
from selftrain.plumbing.sections import load_params
from tests.repository import ROOT


def test_noisy_students_preset_is_the_papers() -> None:
    path = ROOT / "pipelines" / "noisy_student" / "paper.yaml"
    params = load_params(path)
    assert list(all_runs(params, "p")) == ["teacher", "student1", "student2", "student3"]
    for run, teacher, ratio in (
        ("student1", "teacher", 14),
        ("student2", "student1", 14),
        ("student3", "student2", 28),
    ):
        config = train_config(params, run, "p")
        assert run_entry(params, run, "p")[0].teacher == teacher
        assert (config.model, config.unlabeled_ratio) == ("tf_efficientnet_l2", ratio)
        assert (config.batch_size, config.epochs, config.optimizer) == (2048, 350, "rmsproptf")
        assert (config.scaled_learning_rate, config.decay_rate, config.decay_epochs) == (0.128, 0.97, 2.4)
        noise = config.noise
        assert (noise.randaugment_ops, noise.randaugment_magnitude, noise.randaugment_probability) == (2, 27, 1)
        assert config.algorithm.parameters["label_smoothing"] == 0.1
        assert (noise.dropout, noise.stochastic_depth) == (0.5, 0.2)
        assert noise.on_labeled == noise.on_unlabeled == ("augmentation", "stochastic_depth", "dropout")
        fix = phases(config)["resolution_fix"]
        assert (fix.algorithm.name, fix.epochs, fix.noise.on_labeled) == ("supervised", 1.5, ())
        assert fix.image_size > config.image_size
        assert fix.frozen > 0
        select = select_config(params, run, "p")
        assert (select.threshold, select.per_class, select.repeats) == (0.3, 130_000, "drop")
    assert train_config(params, "teacher", "p").model == "tf_efficientnet_b7"
    assert params["predict"]["noise"] == []


def test_noisy_students_svhn_is_the_authors_script() -> None:
    params = load_params(ROOT / "pipelines" / "noisy_student" / "svhn.yaml")
    for run in ("student1", "student2", "student3"):
        config, select = train_config(params, run, "p"), select_config(params, run, "p")
        noise = config.noise
        assert config.algorithm.parameters["label_smoothing"] == 0.1
        assert (config.unlabeled_ratio, noise.randaugment_magnitude, select.per_class) == (5, 5, 53113)
        assert (noise.randaugment_policy, noise.flip, noise.shift, noise.cutout) == ("full", 0, 4 / 32, 16 / 32)


AUTHORS_SCRIPT = {  # size: (pixels, dropout, unlabeled ratio, magnitude, epochs)
    0: (224, 0.2, 1, None, 700),
    1: (240, 0.2, 3, None, 700),
    2: (260, 0.3, 3, 6, 700),
    3: (300, 0.3, 3, 12, 700),
    4: (380, 0.4, 3, 15, 700),
    5: (456, 0.4, 3, 18, 350),
    6: (528, 0.5, 3, 24, 350),
    7: (600, 0.5, 3, 27, 350),
}


def test_the_study_of_model_sizes_has_the_authors_magnitudes_and_the_papers_epochs() -> None:
    params = load_params(ROOT / "pipelines" / "noisy_student" / "model_size.yaml")
    for size, (pixels, dropout, ratio, magnitude, epochs) in AUTHORS_SCRIPT.items():
        assert run_entry(params, f"b{size}_student", "p")[0].teacher == f"b{size}_teacher"
        for name, unlabeled in ((f"b{size}_teacher", 0), (f"b{size}_student", ratio)):
            config, noise = train_config(params, name, "p"), train_config(params, name, "p").noise
            assert (config.model, config.image_size) == (f"tf_efficientnet_b{size}", pixels)
            # A border of 32 pixels around the crop, of the larger image.
            assert config.crop_fraction == pytest.approx(pixels / (pixels + 32), abs=0.001)
            assert (config.epochs, config.unlabeled_ratio, noise.dropout) == (epochs, unlabeled, dropout)
            assert config.decay_epochs == pytest.approx(2.4 * epochs / 350)
            assert config.warmup == pytest.approx(5 / epochs, abs=0.0001)
            assert (noise.randaugment_magnitude if noise.randaugment_ops else None) == magnitude
            assert config.algorithm.parameters["label_smoothing"] == 0.1
