"""What every algorithm has to do, whatever it is."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch

import selftrain
from selftrain.algorithms.algorithm import SHARED, Algorithm, Batch, find_algorithm
from selftrain.hardware import Hardware
from selftrain.training.batches import Share
from selftrain.training.config import TrainConfig
from selftrain.training.loop import Loop
from tests.algorithms.given import GivenNetworks
from tests.training.conftest import TINY

NAMES = sorted({path.stem for path in (Path(selftrain.__file__).parent / "algorithms").glob("*.py")} - SHARED)
NUM_CLASSES = 3


class TinyModel(torch.nn.Module):
    """A network with a norm and dropout, so that forgotten state shows."""

    pretrained_cfg = {"mean": (0.5,) * 3, "std": (0.5,) * 3}
    num_classes = NUM_CLASSES
    channels = (8,)

    def __init__(self, plain: bool = False) -> None:
        super().__init__()
        norm = torch.nn.Identity() if plain else torch.nn.BatchNorm2d(8)
        self.features = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3, stride=2), norm, torch.nn.ReLU())
        self.head = torch.nn.Sequential(
            torch.nn.AdaptiveAvgPool2d(2), torch.nn.Flatten(), torch.nn.Dropout(0 if plain else 0.1),
            torch.nn.Linear(32, NUM_CLASSES),
        )  # fmt: skip

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(self.features(images))

    def forward_intermediates(self, images: torch.Tensor, indices: int, intermediates_only: bool = False) -> Any:
        assert indices == 1
        maps = self.features(images)
        return [maps] if intermediates_only else (maps, [maps])

    def forward_head(self, maps: torch.Tensor) -> torch.Tensor:
        return self.head(maps)

    def get_classifier(self) -> torch.nn.Module:
        return self.head[-1]


def config(name: str) -> TrainConfig:
    return TrainConfig.model_validate(
        TINY
        | {
            "algorithm": {"name": name},
            "unlabeled_ratio": 2,
            "ema_decay": 0.9,
            "learning_rate": 0.02,
            "warmup": 0,
            "steps": 40,
        }
    )


def new_loop(name: str) -> Loop:
    torch.manual_seed(0)
    algorithm_class, parameters = find_algorithm(name, {})
    hardware = Hardware(torch.device("cpu"), bf16=False, workers=0, threads=1)
    return Loop(
        algorithm_class(TinyModel(), parameters, GivenNetworks(lambda _: TinyModel(), of_round=TinyModel())),
        config(name),
        1.0,
        seed=0,
        hardware=hardware,
        share=Share(),
    )


def random_batch(algorithm: Algorithm, seed: int) -> Batch:
    """A batch as the loader makes it, with every view that the algorithm asks for."""
    generator = torch.Generator().manual_seed(seed)
    batch: Batch = {}
    for source, views in algorithm.needs(algorithm.config).views.items():
        count = 6 if source == "labeled" else 12
        labels = torch.arange(count) % NUM_CLASSES
        images = torch.randint(0, 60, (count, 16, 16, 3), generator=generator, dtype=torch.uint8)
        images[torch.arange(count), :, :, labels] += 150  # a class is a colour
        values = {
            "label": labels if source == "labeled" else torch.full((count,), -1),
            "lot": torch.rand(count, generator=generator),
            "log_probs": torch.nn.functional.one_hot(labels, NUM_CLASSES).float().mul(4).log_softmax(dim=1).half(),
        }
        batch[source] = {view: values.get(view, images) for view in views}
    return batch


def weights(loop: Loop) -> list[torch.Tensor]:
    return [
        value.clone()
        for value in [*loop.algorithm.state_dict().values(), *loop.evaluated_model().state_dict().values()]
    ]


@pytest.mark.parametrize("name", NAMES)
def test_steps_lower_the_loss_of_a_fixed_batch(name: str) -> None:
    loop = new_loop(name)
    batch = random_batch(loop.algorithm, 0)
    loop.algorithm.train()
    losses = [float(loop.one_step(batch)["loss"]) for _ in range(12)]
    assert losses[-1] < 0.8 * losses[0]


@pytest.mark.parametrize("name", NAMES)
def test_what_is_logged_is_finite_detached_scalars(name: str) -> None:
    loop = new_loop(name)
    for value in loop.one_step(random_batch(loop.algorithm, 0)).values():
        assert value.shape == ()
        assert not value.requires_grad
        assert torch.isfinite(value)


@pytest.mark.parametrize("name", NAMES)
def test_going_on_from_a_state_equals_never_having_stopped(name: str, tmp_path: Path) -> None:
    from selftrain.training.checkpoint import load_checkpoint, save_checkpoint

    straight = new_loop(name)
    straight.algorithm.train()
    for step in range(6):
        if step == 3:
            save_checkpoint(tmp_path, 3, straight.state())
        straight.one_step(random_batch(straight.algorithm, step))
    resumed = new_loop(name)
    state: Any = load_checkpoint(tmp_path)
    resumed.load_state(state)
    resumed.algorithm.train()
    torch.manual_seed(999)
    for step in range(3, 6):
        resumed.one_step(random_batch(resumed.algorithm, step))
    assert all(torch.equal(one, other) for one, other in zip(weights(straight), weights(resumed), strict=True))


@pytest.mark.parametrize("name", NAMES)
def test_only_trained_networks_change(name: str) -> None:
    loop = new_loop(name)
    before = copy.deepcopy(loop.algorithm.state_dict())
    trained = {id(p) for network in loop.algorithm.trained_networks().values() for p in network.parameters()}
    loop.algorithm.train()
    for step in range(3):  # a layer that starts at zero passes nothing on in the first
        loop.one_step(random_batch(loop.algorithm, step))
    for key, parameter in loop.algorithm.named_parameters():
        assert torch.equal(parameter, before[key]) != (id(parameter) in trained)
