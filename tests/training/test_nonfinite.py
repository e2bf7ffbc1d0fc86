"""A training that diverges ends in one line, and nothing of it is exported."""

import json
import sqlite3
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional

from selftrain.images.index import load_index
from selftrain.learning.algorithm import Algorithm, Batch
from selftrain.learning.runtime import Runtime
from selftrain.networks.models import create_model
from selftrain.params.train import TrainConfig
from selftrain.plumbing.errors import UserError
from selftrain.plumbing.hardware import HardwareConfig, resolve
from selftrain.plumbing.sections import Section
from selftrain.training.batches import Process, TrainingBatches
from selftrain.training.loop import Loop
from selftrain.training.run import Training
from selftrain.training.train import train
from selftrain.training.validation import Validation
from selftrain.training.window import Window
from tests.training.conftest import TINY

MACHINE = HardwareConfig(device="cpu", threads=1, processes=1, workers=0, checkpoint_seconds=1e-9)


def run(corpus: Path, out: Path, **changes: Any) -> None:
    config = TrainConfig.model_validate(TINY | {"noise": {}, "steps": 40, "validate_every": 1} | changes)
    train(Training(out.name, "test", config, MACHINE, 0, corpus, out), restart=[])


def test_a_training_that_diverges_names_the_step_and_exports_nothing(
    digits_corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    wild = {"optimizer": "sgd", "learning_rate": 1e30, "warmup": 0, "schedule": "constant"}
    with pytest.raises(
        UserError, match=r"train wild: the loss or the gradient of step \d+ is not finite.*train.learning_rate.*1e\+30"
    ):
        run(digits_corpus, tmp_path / "wild", **wild)
    assert not (tmp_path / "wild").exists()
    with sqlite3.connect(tmp_path / "mlflow.db") as connection:
        assert connection.execute("select name, status from runs").fetchall() == [("wild", "FAILED")]
    kept = list((tmp_path / ".selftrain" / "checkpoints" / "test" / "wild").rglob("*.safetensors"))
    assert kept, "what was learned before is not lost"
    for checkpoint in kept:
        floats = [value for value in load_file(checkpoint).values() if value.is_floating_point()]
        assert all(bool(value.isfinite().all()) for value in floats), checkpoint


@pytest.mark.parametrize(
    ("losses", "places"),
    [([1.0, 2.0], []), ([1.0, float("nan"), 2.0, float("inf")], [2, 4]), ([float("inf")], [1]), ([], [])],
)
def test_steps_that_are_not_finite_are_found_once_and_left_out(losses: list[float], places: list[int]) -> None:
    window, finite = Window(), torch.tensor(True)
    window.add({"other": torch.tensor(float("nan"))}, 1, finite)
    for loss in losses:
        window.add({"loss": torch.tensor(loss)}, 1, finite)
    assert window.take_nonfinite() == places
    assert window.take_nonfinite() == []
    if len(losses) > len(places):
        assert window.means()["loss"] == 1.5


def test_a_gradient_that_is_not_finite_counts_though_its_loss_is() -> None:
    window = Window()
    window.add({"loss": torch.tensor(1.0)}, 1, torch.tensor(True))
    window.add({"loss": torch.tensor(2.0)}, 1, torch.tensor(False))
    assert window.take_nonfinite() == [1]
    assert window.means()["loss"] == 1.0


class WildAt(Algorithm):
    """Supervised, but for some steps whose loss is infinite in its slope or not a number."""

    wild: ClassVar[tuple[int, ...]] = ()

    def loss(self, batch: Batch, step: int, runtime: Runtime) -> dict[str, Tensor]:
        images = batch["labeled"]["image"]
        if step in self.wild:
            images = images * float("nan")
        logits = runtime.logits(self.student, labeled=images)["labeled"]
        return {"loss": functional.cross_entropy(logits, batch["labeled"]["label"])}


def wild_loop(tiny: Any, steps: tuple[int, ...], **changes: Any) -> Loop:
    torch.manual_seed(0)
    WildAt.wild = steps
    config = tiny(noise={}, steps=8, ema_decay=0.5, **changes)
    network = create_model("test_resnet", 3, 32)
    machine = resolve(MACHINE)
    return Loop(WildAt(network, Section(), None), config, 1.0, 0, machine, Process())  # type: ignore[arg-type]


def batch_of(step: int) -> Batch:
    draw = torch.Generator().manual_seed(step)
    images = torch.randint(0, 256, (8, 32, 32, 3), dtype=torch.uint8, generator=draw)
    return {"labeled": {"image": images, "label": torch.arange(8) % 3}}


def test_a_skipped_step_changes_no_weight_and_no_statistic(tiny: Any) -> None:
    loop = wild_loop(tiny, (2, 5), skip_nonfinite=2)
    for step in range(8):
        before = {name: value.clone() for name, value in loop.algorithm.state_dict().items()}
        loop.one_step(batch_of(step))
        changed = [n for n, value in loop.algorithm.state_dict().items() if not torch.equal(value, before[n])]
        assert (not changed) == (step in (2, 5)), (step, changed)
    floats = [value for value in loop.evaluated_model().state_dict().values() if value.is_floating_point()]
    assert all(bool(value.isfinite().all()) for value in floats)


def test_a_training_may_skip_as_many_steps_as_it_is_told_and_names_the_images_of_the_next(
    digits_corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    config = TrainConfig.model_validate(TINY | {"noise": {}, "steps": 30, "validate_every": 50, "skip_nonfinite": 2})
    patient = config.model_copy(update={"skip_nonfinite": 12})
    labeled = load_index(digits_corpus / "labeled")
    batches = TrainingBatches(config, {"labeled": ("image", "label")}, 0, Process(), labeled, None)
    held_out = load_index(digits_corpus / "validation")
    for wild, ends in (((3, 17), True), ((3, 17, 18, 25), False), (tuple(range(12)), True)):
        torch.manual_seed(0)
        WildAt.wild = wild
        algorithm = WildAt(create_model("test_resnet", 10, 32), Section(), None)  # type: ignore[arg-type]
        loop = Loop(algorithm, patient if len(wild) == 12 else config, 1.0, 0, resolve(MACHINE), Process())
        validation = Validation(held_out, config, loop.hardware, loop.process)
        curves, folder = Points(), tmp_path / str(len(wild))
        if ends:
            loop.run(batches, validation, curves, folder, 1e9, "train wild")
            skipped = [point["skipped_steps"] for point in curves.points if "skipped_steps" in point]
            assert skipped == ([1, 2, 2] if len(wild) == 2 else [10, 12, 12])
            continue
        with pytest.raises(UserError, match="gradient of step 19 is not finite"):
            loop.run(batches, validation, curves, folder, 1e9, "train wild")
        seen = batches.keys(18)["labeled"]
        assert json.loads((folder / "nonfinite.json").read_text()) == {"step": 19, "keys": {"labeled": seen}}
        halves = [TrainingBatches(config, batches.views, 0, Process(rank, 2), labeled, None) for rank in (0, 1)]
        labels = [half[18]["labeled"]["label"].tolist() for half in halves]
        classes = dict(zip(labeled.keys.tolist(), labeled.labels.tolist(), strict=True))
        assert [classes[key] for key in seen] == labels[0] + labels[1]


class Points:
    """Curves that are kept."""

    def __init__(self) -> None:
        self.points: list[dict[str, float]] = []

    def log(self, step: int, metrics: dict[str, float]) -> None:
        self.points.append(metrics)

    def flush(self) -> None:
        pass
