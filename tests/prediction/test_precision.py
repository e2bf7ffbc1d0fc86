"""When labels may be made in bf16."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from selftrain.networks.export import export_model
from selftrain.networks.models import create_model
from selftrain.params.predict import PredictConfig
from selftrain.plumbing.hardware import HardwareConfig, resolve
from selftrain.prediction.precision import Verdict, compare
from selftrain.prediction.predict import predict
from selftrain.tables.parquet import stamp
from selftrain.tables.predictions import PRECISION, iter_predictions

CLASSES = [str(digit) for digit in range(10)]


def test_labels_are_compared_image_by_image() -> None:
    single = torch.tensor([[2.0, 1.0], [1.0, 2.0], [1.0, 1.5], [0.0, -1.0]])
    other = torch.tensor([[2.0, 1.0], [1.0, 2.0], [1.6, 1.5], [0.0, -1.0]])
    verdict = compare([single, single[:3]], lambda images: other[: len(images)], lambda images: images)
    assert verdict == Verdict(images=7, changed=2)
    assert not verdict.agrees


@pytest.mark.parametrize(
    ("images", "changed", "agrees"), [(512, 0, True), (512, 1, False), (2000, 2, True), (0, 0, True)]
)
def test_one_label_of_a_thousand_may_change(images: int, changed: int, agrees: bool) -> None:
    assert Verdict(images, changed).agrees == agrees


@pytest.mark.parametrize(("offset", "precision"), [(0.0, b"bf16"), (3000.0, b"fp32")])
def test_a_network_that_bf16_would_spoil_labels_in_float32(
    digits_corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], offset: float, precision: bytes
) -> None:
    """Features far from zero lose in bf16 what tells images apart."""
    torch.manual_seed(0)
    model = create_model("test_resnet", 10, 32)
    with torch.no_grad():
        norm = model.layer4[-1].bn2
        norm.bias.fill_(offset)
        weight = model.fc.weight
        weight.sub_(weight.mean(dim=1, keepdim=True)).mul_(30)
        model.fc.bias.zero_()
    export_model(model, tmp_path / "model", classes=CLASSES, image_size=32, crop_fraction=1.0)
    tables: dict[str, list[np.ndarray]] = {}
    for how in ("bf16", "fp32"):
        machine = HardwareConfig(device="cpu", threads=1, workers=0, precision=how)
        predict(tmp_path / "model", digits_corpus, ["test"], tmp_path / how, PredictConfig(), 0, machine)
        tables[how] = [part.log_probs for _, part in iter_predictions(tmp_path / how / "test")]
    part = next((tmp_path / "bf16" / "test").glob("*.parquet"))
    assert stamp(part, PRECISION) == precision.decode()
    same = all(np.array_equal(*pair) for pair in zip(tables["bf16"], tables["fp32"], strict=True))
    said = capsys.readouterr().out
    assert same == (precision == b"fp32")
    assert ("predict bf16: float32, since" if same else "predict bf16: bf16, as") in said


def test_auto_asks_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    for feature in ("avx512_bf16", "amx_tile"):
        for other in ("avx512_bf16", "amx_tile"):
            monkeypatch.setattr(torch.cpu, f"_is_{other}_supported", lambda has=feature == other: has)
        assert resolve(HardwareConfig(device="cpu")).bf16
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    assert not resolve(HardwareConfig(device="cpu")).bf16
    assert resolve(HardwareConfig(device="cpu", precision="bf16")).bf16


def test_logits_are_no_coarser_than_float32(digits_corpus: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    export_model(create_model("test_resnet", 10, 32), tmp_path / "m", classes=CLASSES, image_size=32, crop_fraction=1.0)
    machine = HardwareConfig(device="cpu", threads=1, workers=0, precision="bf16")
    predict(tmp_path / "m", digits_corpus, ["unlabeled"], tmp_path / "out", PredictConfig(), 0, machine)
    confidences = np.concatenate([part.confidences for _, part in iter_predictions(tmp_path / "out" / "unlabeled")])
    coarse = Tensor(confidences).bfloat16().float().numpy()
    assert (confidences != coarse).mean() > 0.9
