"""Training from images to steps, held against a bare loop and timm's; and a FixMatch step against one without a frame.

The bound of a training: the same network, batch and optimizer in bf16 on one batch in memory. timm's loop: its dataset,
transforms and loader with as many processes as ours, float32, as its `train.py` has them without a GPU. FixMatch's step
is of the size that USB's CIFAR configurations have: 64 labeled images and seven times as many unlabeled ones.
"""

import contextlib
import io
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import timm.data
import torch
from measure import QUICK, Table, photographs, take_turns
from timm.optim import create_optimizer_v2
from torch import nn
from torch.nn import functional
from torch.optim import swa_utils

from selftrain.corpus.ingest import ingest
from selftrain.images.index import load_index
from selftrain.images.workers import in_order
from selftrain.learning.algorithm import find_algorithm
from selftrain.networks.models import create_model
from selftrain.params.ingest import IngestConfig
from selftrain.params.train import TrainConfig
from selftrain.plumbing.hardware import Hardware, HardwareConfig, resolve
from selftrain.training.batches import Process, TrainingBatches
from selftrain.training.loop import Loop
from selftrain.training.run_networks import RunNetworks

CLASSES = ["a", "b"]
CASES = (
    [("test_resnet", 32, 32, 32, 4)]
    if QUICK
    else [("test_resnet", 32, 32, 128, 60), ("wide_resnet28_2", 32, 32, 64, 20), ("resnet18", 171, 128, 32, 20)]
)
"""Network, height of the files, size that it sees, images a step, steps."""
FIXMATCH = ("test_resnet", 4, 2) if QUICK else ("wide_resnet28_2", 64, 3)
"""Network, labeled images a step, steps."""


def main() -> None:
    table = Table("training")
    for case in CASES:
        # Kept pixels lie under the working folder.
        with tempfile.TemporaryDirectory() as scratch, contextlib.chdir(scratch):
            measure(table, *case)
    fixmatch(table, *FIXMATCH)
    table.write()


def measure(table: Table, name: str, side: int, size: int, batch_size: int, steps: int) -> None:
    """Supervised training with crops where the images are larger, flips and two operations of RandAugment."""
    config = corpus(side, steps * batch_size)
    with contextlib.redirect_stdout(io.StringIO()):
        ingest(config, 0, Path("corpus"))
    crop = [0.3, 1.0] if side != size else None
    noise = {"random_crop": crop, "flip": 0.5, "randaugment_ops": 2, "randaugment_magnitude": 9}
    parameters = {"model": name, "image_size": size, "batch_size": batch_size, "noise": noise}
    machine = resolve(HardwareConfig(device="cpu"))
    loop = new_loop("supervised", parameters, machine)
    labeled = load_index(Path("corpus/labeled"))
    batches = TrainingBatches(
        loop.config, {"labeled": ("image", "label")}, 0, Process(), labeled, None, None, machine.caches
    )

    def ours() -> None:
        for batch in in_order(batches, range(steps), machine.workers):
            loop.one_step(batch)

    step = bare_step(create_model(name, 2, size), machine.autocast)
    images, labels = torch.rand(batch_size, 3, size, size), torch.randint(0, 2, (batch_size,))
    images = images.to(memory_format=torch.channels_last)
    timms = bare_step(create_model(name, 2, size), contextlib.nullcontext)

    def timm_loop() -> None:
        for of_timm in timm_batches(size, batch_size, crop, machine.workers):
            timms(*of_timm)

    ours()
    works = {
        "ours": ours,
        "bf16 steps on one batch": lambda: [step(images, labels) for _ in range(steps)],
        "timm's loop": timm_loop,
    }
    seconds = take_turns(works, 1 if QUICK else 3)
    table.compare(f"{name}, {size} pixels", steps * batch_size, "ours", seconds, "images/s")


def corpus(side: int, count: int) -> IngestConfig:
    """Half of the images are of each class."""
    splits = {"labeled": photographs(count, side)}
    splits |= {split: photographs(2, 40, seed) for seed, split in enumerate(("validation", "test", "pool"), 1)}
    for split, images in splits.items():
        for number, data in enumerate(images):
            folder = Path("images") / split / (CLASSES[number % 2] if split != "pool" else "")
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{number:06d}.jpg").write_bytes(data)
    values = {split: {"images": split} for split in ("labeled", "validation", "test")}
    return IngestConfig.model_validate(
        {"root": "images", "unlabeled": {"images": "pool"}, "near_duplicates": False, **values}
    )


def new_loop(algorithm: str, parameters: dict[str, Any], machine: Hardware) -> Loop:
    """Ours, at its first step."""
    values = {"algorithm": {"name": algorithm}, "steps": 10_000, "optimizer": "sgd", "learning_rate": 0.01}
    config = TrainConfig.model_validate(values | parameters)
    made, options = find_algorithm(config.algorithm.name, config.algorithm.parameters)
    networks = RunNetworks(None, CLASSES, config, machine.device)
    loop = Loop(made(networks.student(None), options, networks), config, 1.0, 0, machine, Process())
    loop.algorithm.train()
    return loop


def bare_step(network: nn.Module, precision: Callable[[], Any]) -> Callable[[torch.Tensor, torch.Tensor], None]:
    """Forward, backward, SGD."""
    network.train().to(memory_format=torch.channels_last)
    optimizer = create_optimizer_v2(network, opt="sgd", lr=0.01)

    def step(images: torch.Tensor, labels: torch.Tensor) -> None:
        with precision():
            logits = network(images)
        functional.cross_entropy(logits.float(), labels).backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def timm_batches(size: int, batch_size: int, crop: list[float] | None, workers: int) -> Iterator[list[torch.Tensor]]:
    dataset = timm.data.create_dataset("", root="images/labeled")
    dataset.transform = timm.data.create_transform(
        size, is_training=True, scale=crop or (1.0, 1.0), auto_augment="rand-m9-n2-mstd0", interpolation="bilinear",
        color_jitter=None,
    )  # fmt: skip
    yield from torch.utils.data.DataLoader(dataset, batch_size, shuffle=True, num_workers=workers, drop_last=True)


def fixmatch(table: Table, name: str, batch_size: int, steps: int) -> None:
    """One step on a batch in memory."""
    machine = resolve(HardwareConfig(device="cpu", workers=0))
    ratio, more = 7, 7 * batch_size
    sizes = {"batch_size": batch_size, "unlabeled_ratio": ratio}
    loop = new_loop("fixmatch", {"model": name, "image_size": 32, "ema_decay": 0.999, **sizes}, machine)
    weak, strong = (torch.randint(0, 256, (more, 32, 32, 3), dtype=torch.uint8) for _ in range(2))
    labeled, labels = torch.randint(0, 256, (batch_size, 32, 32, 3), dtype=torch.uint8), torch.zeros(batch_size).long()
    batch = {
        "labeled": {"image": labeled, "label": labels},
        "unlabeled": {"image_weak": weak, "image": strong, "label": torch.full((more,), -1)},
    }
    network = create_model(name, 2, 32).train().to(memory_format=torch.channels_last)
    average = swa_utils.AveragedModel(network, multi_avg_fn=swa_utils.get_ema_multi_avg_fn(0.999))
    optimizer = create_optimizer_v2(network, opt="sgd", lr=0.01)

    def bare() -> None:
        images = torch.cat([labeled, weak, strong]).permute(0, 3, 1, 2).float() / 128 - 1
        with machine.autocast():
            logits = network(images)
        of_labeled, of_weak, of_strong = logits.float().split([batch_size, more, more])
        with torch.no_grad():
            confidence, guessed = of_weak.softmax(dim=1).max(dim=1)
        consistency = functional.cross_entropy(of_strong, guessed, reduction="none") * (confidence > 0.95)
        (functional.cross_entropy(of_labeled, labels) + consistency.mean()).backward()
        optimizer.step()
        optimizer.zero_grad()
        average.update_parameters(network)

    def ours() -> None:
        for _ in range(steps):
            loop.one_step(batch)

    ours()
    works = {"ours": ours, "without a frame": lambda: [bare() for _ in range(steps)]}
    seconds = take_turns(works, 1 if QUICK else 5)
    table.compare(
        f"a FixMatch step, {name}, {batch_size} + {ratio * batch_size} images", steps, "ours", seconds, "steps/s"
    )


if __name__ == "__main__":
    main()
