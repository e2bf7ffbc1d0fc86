import csv
import subprocess
import sys
from pathlib import Path

import nbformat
import numpy as np
import pytest
import torch
from nbclient import NotebookClient
from torch import Tensor, nn

from selftrain.algorithms.meta_pseudo_labels import MetaPseudoLabels, MetaPseudoLabelsConfig
from selftrain.learning.runtime import Runtime
from selftrain.params.train import TrainConfig
from selftrain.studies.two_moons import SETTINGS, Draws, MoonsConfig, forward, teach, train
from selftrain.studies.two_moons_table import success_rate
from selftrain.training.optimization import Descent
from tests.algorithms.given import GivenNetworks
from tests.repository import ROOT
from tests.training.conftest import TINY


def test_every_draw_is_two_moons_with_three_labels_each() -> None:
    draws = Draws(MoonsConfig(points=200), 5)
    assert draws.points.shape == (5, 200, 2)
    assert (draws.moons.sum(axis=1) == 100).all()
    labels = np.take_along_axis(draws.moons, draws.labeled, axis=1)
    assert (labels == [0, 0, 0, 1, 1, 1]).all()
    assert len({tuple(sorted(rows)) for rows in draws.labeled}) == 5
    assert all(len(set(rows)) == 6 for rows in draws.labeled)


def weights(seed: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shapes = {
        "weight1": (2, 8),
        "weight2": (8, 8),
        "weight3": (8, 2),
        "bias1": (1, 8),
        "bias2": (1, 8),
        "bias3": (1, 2),
    }
    return {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}


class Network(nn.Module):
    """The experiment's network as a module."""

    def __init__(self, values: dict[str, Tensor]) -> None:
        super().__init__()
        self.weights = nn.ParameterDict({name: nn.Parameter(value.clone()) for name, value in values.items()})

    def forward(self, points: Tensor) -> Tensor:
        return forward(dict(self.weights), points)


@pytest.mark.parametrize("feedback", ["cosine", "dot_product"])
@pytest.mark.parametrize("uda_factor", [0.0, 3.0])
def test_a_step_is_that_of_the_algorithm(feedback: str, uda_factor: float) -> None:
    setting = MoonsConfig.model_validate(
        {"feedback": feedback, "feedback_factor": 3, "learning_rate": 0.2, "uda_factor": uda_factor}
    )
    generator = torch.Generator().manual_seed(0)
    points, labels = torch.randn(30, 2, generator=generator), torch.tensor([0, 0, 0, 1, 1, 1])
    uniforms = torch.rand(24, generator=generator)
    moved = points[6:] + 0.2 * torch.randn(24, 2, generator=generator)
    batch = {"unlabeled": points[6:], "moved": moved, "uniforms": uniforms, "labeled": points[:6], "labels": labels}
    teacher, student, baseline = teach(weights(1), weights(2), torch.tensor(0.01), batch, setting)

    config = {"feedback": feedback, "feedback_factor": 3, "labels_from": "image_weak", "temperature": 0.3}
    config |= {"teacher_loss": "uda" if uda_factor else "supervised", "unlabeled_factor": uda_factor}
    networks = [Network(weights(1)), Network(weights(2))]
    algorithm = MetaPseudoLabels(
        networks[1], MetaPseudoLabelsConfig.model_validate(config), GivenNetworks(lambda _: networks[0])
    )
    algorithm.baseline.fill_(0.01)
    plain = {"optimizer": "sgd", "optimizer_options": {"momentum": 0, "nesterov": False}, "weight_decay": 0}
    rate = {"learning_rate": 0.2, "warmup": 0, "schedule": "constant"}
    own = TrainConfig.model_validate(TINY | plain | rate)
    minimizers = {name: Descent(network, own, 10, 1) for name, network in algorithm.trained_networks().items()}
    nobodys = torch.full((24,), -1)

    class StudentSeesThePoints(Runtime):
        """The student learns from the points as they are; the moved ones are the teacher's alone."""

        def logits(self, network: torch.nn.Module, **images: torch.Tensor) -> dict[str, torch.Tensor]:
            return super().logits(network, **images | ({"unlabeled": points[6:]} if network is networks[1] else {}))

    unlabeled = {"image": moved, "image_weak": points[6:], "label": nobodys, "uniform": uniforms}
    labeled = {"image": points[:6], "label": labels, "uniform": uniforms[:6]}
    algorithm.update({"labeled": labeled, "unlabeled": unlabeled}, 0, StudentSeesThePoints(minimizers))
    for network, expected in zip(networks, (teacher, student), strict=True):
        for name, value in expected.items():
            torch.testing.assert_close(network.weights[name].detach(), value)
    torch.testing.assert_close(algorithm.baseline, baseline)


def test_draws_do_not_touch_each_other() -> None:
    setting = MoonsConfig(points=60, steps=5, batch_size=60, initial_weights=1.0, uda_factor=1, learning_rate=0.5)
    draws = Draws(setting, 3)
    found = train(setting, draws, 0)
    draws.points[1] += 1
    again = train(setting, draws, 0)
    for method, own in found.items():
        for name, value in own.items():
            assert torch.equal(value[0], again[method][name][0])
            assert torch.equal(value[2], again[method][name][2])
    assert not torch.equal(found["teacher"]["weight1"][1], again["teacher"]["weight1"][1])


def test_supervised_training_is_gradient_descent_on_six_points() -> None:
    setting = MoonsConfig(points=60, steps=300, initial_weights=1.0, learning_rate=0.5)
    draws = Draws(setting, 2)
    found = train(setting, draws, 0)["supervised"]
    for draw in range(2):
        own = {name: value[draw] for name, value in found.items()}
        logits = forward(own, torch.from_numpy(draws.points[draw][draws.labeled[draw]]))
        assert nn.functional.cross_entropy(logits, torch.tensor([0, 0, 0, 1, 1, 1])) < 0.6


def test_success_rates() -> None:
    rate, low, high = success_rate(np.array([0.96, 0.95, 0.94, 0.5] * 25))
    assert rate == 0.5
    # Wilson's interval for 50 of 100.
    assert (low, high) == pytest.approx((0.4038, 0.5962), abs=1e-4)


@pytest.mark.slow
def test_the_command_prints_and_draws(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "selftrain", "two-moons", "--draws", "3", "--steps", "20", "--out", "found"]
    printed = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    with (tmp_path / "found" / "two_moons.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 5 * len(SETTINGS)
    assert all(float(row["low"]) <= float(row["success"]) <= float(row["high"]) for row in rows)
    for place, name in enumerate(SETTINGS):
        assert name[:20] in printed
        assert "<svg" in (tmp_path / "found" / f"two_moons_{place}.svg").read_text()


@pytest.mark.slow
def test_the_notebook_draws_the_papers_figure() -> None:
    notebook = nbformat.read(ROOT / "notebooks" / "05_two_moons.ipynb", as_version=4)
    (settings,) = [cell for cell in notebook.cells if "DRAWS, STEPS = 20, None" in cell.source]
    settings.source = settings.source.replace("DRAWS, STEPS = 20, None", "DRAWS, STEPS = 3, 20")
    NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(ROOT / "notebooks")}}).execute()
    pictures = [output.data["image/svg+xml"] for output in notebook.cells[-1].outputs if "data" in output]
    assert len(pictures) == 3 * len(SETTINGS)
    assert "Meta Pseudo Labels" in str(notebook.cells[3].outputs)
