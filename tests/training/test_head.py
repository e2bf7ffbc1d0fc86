"""Trainings that start from a fitted classifier, and trainings that are nothing else: from folders to folders."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from torch import nn

from selftrain.algorithms.linear_probe import LinearProbe, LinearProbeConfig
from selftrain.calibration import FIRMNESS, at_temperature, fit_temperature
from selftrain.images.index import load_index
from selftrain.networks.export import divide_logits, export_model
from selftrain.networks.models import create_model, load_model
from selftrain.params.train import TrainConfig
from selftrain.plumbing.errors import UserError
from selftrain.plumbing.hardware import HardwareConfig, resolve
from selftrain.tables.records import RunRecord
from selftrain.training.batches import Process
from selftrain.training.head import features_of, put_in_fitted_head
from selftrain.training.run import Training
from selftrain.training.train import train
from selftrain.training.validation import Validation
from tests.training.conftest import TINY

MACHINE = HardwareConfig(device="cpu", threads=1, processes=1, workers=0)


def trained(corpus: Path, out: Path, **changes: Any) -> tuple[nn.Module, RunRecord]:
    config = TrainConfig.model_validate(TINY | {"noise": {}, "shared_seed": True} | changes)
    train(Training(out.name, "test", config, MACHINE, 0, corpus, out, track=False), restart=[])
    return load_model(out)[0], RunRecord.read(out / "run.json")


@pytest.fixture
def backbone(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    model = create_model("test_resnet", 5, 32)
    export_model(model, tmp_path / "backbone", classes=list("abcde"), image_size=32, crop_fraction=1.0)
    return tmp_path / "backbone"


def scores(model: nn.Module, corpus: Path, split: str) -> tuple[np.ndarray, np.ndarray]:
    """(log-probabilities, labels), by plain timm."""
    index = load_index(corpus / split)
    config = TrainConfig.model_validate(TINY)
    features = torch.from_numpy(features_of(model, index, config, resolve(MACHINE)))
    model.eval()
    with torch.inference_mode():
        return model.get_classifier()(features).log_softmax(1).numpy(), index.labels


def test_a_linear_probe_is_a_timm_folder_with_the_backbone_as_it_was(
    digits_corpus: Path, backbone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    model, record = trained(
        digits_corpus, tmp_path / "probe", algorithm={"name": "linear_probe"}, weights=str(backbone)
    )
    given = timm.create_model(f"local-dir:{backbone}", pretrained=True).state_dict()
    for name, value in model.state_dict().items():
        assert torch.equal(value, given[name]) == (not name.startswith("fc.")), name
    (phase,) = record.phases
    assert (record.steps, phase["steps"]) == (0, 0)
    assert record.temperature == phase["probe_temperature"] != 1
    log_probs, labels = scores(model, digits_corpus, "test")
    assert (log_probs.argmax(1) == labels).mean() > 0.4, "of a random network's features; chance is a tenth"
    again, _ = trained(digits_corpus, tmp_path / "again", algorithm={"name": "linear_probe"}, weights=str(backbone))
    assert torch.equal(again.get_classifier().weight, model.get_classifier().weight)


def test_fine_tuning_starts_from_the_probe(
    digits_corpus: Path, backbone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    probe, probe_record = trained(
        digits_corpus, tmp_path / "probe", algorithm={"name": "linear_probe"}, weights=str(backbone)
    )
    still = {"learning_rate": 1e-9, "weight_decay": 0, "steps": 1, "validate_every": 1, "warmup": 0}
    assert list(probe_record.data) == ["labeled", "validation", "weights"]
    for head, same in (("linear_probe", True), ("new", False)):
        tuned, _ = trained(digits_corpus, tmp_path / head, weights=str(backbone), head=head, **still)
        close = torch.allclose(tuned.get_classifier().weight, probe.get_classifier().weight, atol=1e-6)
        assert close == same


def test_a_network_whose_features_were_asked_for_can_be_trained(digits_corpus: Path) -> None:
    network = create_model("test_resnet", 10, 32)
    features_of(network, load_index(digits_corpus / "labeled"), TrainConfig.model_validate(TINY), resolve(MACHINE))
    assert not any(value.is_inference() for value in [*network.parameters(), *network.buffers()])
    network.train()(torch.rand(4, 3, 32, 32)).sum().backward()


def test_a_calibrated_export_needs_no_temperature_any_more(
    digits_corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    how = {"steps": 40, "validate_every": 20, "learning_rate": 0.01}
    plain, without = trained(digits_corpus, tmp_path / "plain", **how)
    model, record = trained(digits_corpus, tmp_path / "calibrated", calibration="validation", **how)
    before, labels = scores(plain, digits_corpus, "validation")
    after, _ = scores(model, digits_corpus, "validation")
    assert without.temperature == 1
    assert record.temperature == pytest.approx(fit_temperature(before, labels, FIRMNESS), rel=1e-3)
    assert abs(np.log(record.temperature)) > 0.05, "there was something to calibrate"
    np.testing.assert_allclose(after, at_temperature(before, record.temperature), atol=1e-4)
    assert np.array_equal(before.argmax(1), after.argmax(1))


def test_what_cannot_be_probed_or_calibrated_is_named(digits_corpus: Path, tmp_path: Path) -> None:
    hardware = resolve(MACHINE)
    index = load_index(digits_corpus / "labeled")
    classes = [str(label) for label in range(10)]
    config = TrainConfig.model_validate(TINY)
    some = index.take(index.labels != 7)
    probe = (LinearProbe, LinearProbeConfig())
    with pytest.raises(UserError, match="the class '7' has no labeled image"):
        put_in_fitted_head(create_model("test_resnet", 10, 32), *probe, some, None, classes, config, 0, hardware)
    with pytest.raises(UserError, match="'test_resnet' has no linear classifier"):
        put_in_fitted_head(nn.Conv2d(3, 10, 1), *probe, index, None, classes, config, 0, hardware)
    model = create_model("test_resnet", 0, 32)
    with pytest.raises(UserError, match=r"train.calibration: .* not linear"):
        divide_logits(model, 2.0)


def test_the_temperature_of_validation_images_leaves_the_network_in_eval_mode(digits_corpus: Path) -> None:
    config = TrainConfig.model_validate(TINY)
    model = create_model("test_resnet", 10, 32)
    validation = Validation(load_index(digits_corpus / "validation"), config, resolve(MACHINE), Process())
    assert 0.05 <= validation.temperature(model) <= 20
    assert not model.training
