"""A tiny network, and the loop and the batches of any algorithm that trains it."""

from typing import Any

import torch

from selftrain.learning.algorithm import Algorithm, Batch, find_algorithm
from selftrain.params.train import TrainConfig
from selftrain.plumbing.by_name import known_modules
from selftrain.plumbing.hardware import Hardware
from selftrain.training.batches import Process
from selftrain.training.loop import Loop
from tests.algorithms.given import GivenNetworks
from tests.training.conftest import TINY

NAMES = [name for name in known_modules("algorithms") if not find_algorithm(name, {})[0].closed_form]
"""Those that take steps."""
OTHERWISE: dict[str, dict[str, Any]] = {
    "dynamic_teacher": {"updates": "alternating", "teacher_every": 2, "challenge": 0.1},
    "meta_pseudo_labels": {"feedback": "finite_difference", "feedback_at": "new_student"},
    "reduced_meta_pseudo_labels": {"feedback_at": "own_step", "student_labeled_factor": 0.5},
}
"""Parameters with which some take other gradients than by default."""
ARMS = {name: (name, dict[str, Any]()) for name in NAMES} | {
    f"{name}, otherwise": (name, parameters) for name, parameters in OTHERWISE.items()
}
NUM_CLASSES = 3


class TinyModel(torch.nn.Module):
    """A network with a norm and dropout, so that forgotten state shows."""

    pretrained_cfg = {"mean": (0.5,) * 3, "std": (0.5,) * 3}
    num_classes = NUM_CLASSES

    def __init__(self, plain: bool = False, width: int = 8, normed: bool = False) -> None:
        super().__init__()
        self.channels = (width,)
        norm = torch.nn.Identity() if plain and not normed else torch.nn.BatchNorm2d(width)
        self.features = torch.nn.Sequential(torch.nn.Conv2d(3, width, 3, stride=2), norm, torch.nn.ReLU())
        self.head = torch.nn.Sequential(
            torch.nn.AdaptiveAvgPool2d(2), torch.nn.Flatten(), torch.nn.Dropout(0 if plain else 0.1),
            torch.nn.Linear(4 * width, NUM_CLASSES),
        )  # fmt: skip

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(self.features(images))

    def forward_intermediates(self, images: torch.Tensor, indices: int, intermediates_only: bool = False) -> Any:
        assert indices == 1
        maps = self.features(images)
        return [maps] if intermediates_only else (maps, [maps])

    def forward_head(self, maps: torch.Tensor) -> torch.Tensor:
        return self.head(maps)

    def group_matcher(self, coarse: bool) -> dict[str, str]:
        return {"stem": "^features", "head": "^head"}

    def get_classifier(self) -> torch.nn.Module:
        return self.head[-1]


PLAIN: dict[str, Any] = {
    "noise": {"dropout": 0.0}, "optimizer": "sgd", "optimizer_options": {"nesterov": False}, "clip_grad": 1.0,
}  # fmt: skip
"""Without random numbers in the network, and steps that are proportional to gradients."""


def config(name: str, plain: bool = False, **changes: Any) -> TrainConfig:
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
        | (PLAIN if plain else {})
        | changes
    )


def new_loop(
    name: str,
    plain: bool = False,
    process: Process | None = None,
    teacher_width: int = 12,
    parts: int = 1,
    synchronized: bool = False,
    checkpointed: bool = False,
    sharded: bool = False,
    bf16: bool = False,
    compiled: bool = False,
    **parameters: Any,
) -> Loop:
    torch.manual_seed(0)
    algorithm_class, own = find_algorithm(name, parameters)
    hardware = Hardware(torch.device("cpu"), bf16=bf16, workers=0, threads=1, compile=compiled, fsdp=sharded)
    networks = GivenNetworks(
        lambda _: TinyModel(plain, normed=synchronized), of_round=TinyModel(plain, teacher_width, synchronized)
    )
    return Loop(
        algorithm_class(TinyModel(plain, normed=synchronized), own, networks),
        config(name, plain, grad_accum_steps=parts, sync_batchnorm=synchronized, activation_checkpointing=checkpointed),
        1.0,
        seed=0,
        hardware=hardware,
        process=process or Process(),
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
            "uniform": torch.rand(count, generator=generator),
            "weight": torch.rand(count, generator=generator),
            "log_probs": torch.nn.functional.one_hot(labels, NUM_CLASSES).float().mul(4).log_softmax(dim=1).half(),
        }
        batch[source] = {view: values.get(view, images) for view in views}
    return batch


def weights(loop: Loop) -> list[torch.Tensor]:
    return [
        value.clone()
        for value in [*loop.algorithm.state_dict().values(), *loop.evaluated_model().state_dict().values()]
    ]
