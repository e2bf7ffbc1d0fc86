"""Peak memory of every algorithm on the same job.

    python benchmarks/memory.py                  # ResNet-50 at 224 pixels on the CPU, a quarter of an hour
    python benchmarks/memory.py --model resnet18 --batch-size 16

Each takes three steps on random images in a process of its own. What is measured is the process's peak (resident
memory, or the GPU's allocated memory), less that of a process which loads the same libraries and makes no network.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

RATIO, STEPS = 1, 3
CLASSES = [str(number) for number in range(1000)]
ALGORITHMS: dict[str, dict[str, Any]] = {
    "supervised": {},
    "pretraining": {},
    "reduced_meta_pseudo_labels": {"feedback_at": "plain_step"},
    "noisy_student": {},
    "noisy_student, in 4 parts": {},
    "noisy_student, blocks computed again": {},
    "distillation": {},
    "pseudo_label": {},
    "distillation, live": {"teacher": "live"},
    "feature_distillation": {},
    "self_distillation": {"teacher": "average"},
    "mean_teacher": {},
    "uda": {},
    "fixmatch": {},
    "dynamic_teacher": {},
    "mutual_learning": {},
    "meta_pseudo_labels": {"feedback_at": "plain_step"},
}
SMALLER: dict[str, dict[str, Any]] = {
    "noisy_student, in 4 parts": {"grad_accum_steps": 4},
    "noisy_student, blocks computed again": {"activation_checkpointing": True},
}
"""Parameters that take less memory."""


def train(job: str, model: str, batch_size: int, image_size: int, teacher: Path) -> dict[str, float]:
    """Take a few steps and return the process's peak memory in MiB; ``nothing`` takes none."""
    from selftrain.learning.algorithm import find_algorithm
    from selftrain.params.train import TrainConfig
    from selftrain.plumbing.hardware import HardwareConfig, peak_memory, resolve
    from selftrain.training.batches import Process
    from selftrain.training.loop import Loop
    from selftrain.training.run_networks import RunNetworks

    hardware = resolve(HardwareConfig.model_validate({"workers": 0}))
    if job != "nothing":
        name = job.partition(",")[0]
        algorithm_class, parameters = find_algorithm(name, ALGORITHMS[job])
        needs = algorithm_class.needs(parameters)
        config = TrainConfig.model_validate(
            {
                "algorithm": {"name": name},
                "ema_decay": 0.999 if needs.average else None,
                "model": model,
                "image_size": image_size,
                "batch_size": batch_size,
                "steps": STEPS,
                "optimizer": "sgd",
                "learning_rate": 0.01,
            }
            | SMALLER.get(job, {})
        )

        networks = RunNetworks(teacher, CLASSES, config, hardware.device)
        algorithm = algorithm_class(networks.student(None), parameters, networks)
        loop = Loop(algorithm, config, 1.0, 0, hardware, Process())
        algorithm.train()
        for _ in range(STEPS):
            loop.one_step(batch(needs.views, batch_size, image_size))
    return {"mib": peak_memory(hardware.device) / 2**20}


def batch(views: dict[str, tuple[str, ...]], batch_size: int, image_size: int) -> dict[str, dict[str, Any]]:
    """Random values for every view."""
    import torch

    made = {}
    for source, names in views.items():
        count = batch_size * (1 if source == "labeled" else RATIO)
        values = {
            "label": torch.zeros(count, dtype=torch.int64) - (source == "unlabeled") * 1,
            "uniform": torch.rand(count),
            "weight": torch.ones(count),
            "log_probs": torch.randn(count, len(CLASSES)).log_softmax(dim=1).half(),
        }
        images = torch.randint(0, 256, (count, image_size, image_size, 3), dtype=torch.uint8)
        made[source] = {name: values.get(name, images) for name in names}
    return made


def write_teacher(model: str, image_size: int, folder: Path) -> None:
    """An untrained model's folder, for algorithms that run their teacher."""
    from selftrain.networks.export import export_model
    from selftrain.networks.models import create_model

    network = create_model(model, len(CLASSES), image_size)
    export_model(network, folder, classes=CLASSES, image_size=image_size, crop_fraction=1.0, options={})


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="resnet50")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--algorithm", help=argparse.SUPPRESS)
    parser.add_argument("--teacher", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    model, batch_size, image_size = arguments.model, arguments.batch_size, arguments.image_size
    if arguments.algorithm:
        print(json.dumps(train(arguments.algorithm, model, batch_size, image_size, arguments.teacher)))
        return
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        teacher = Path(folder) / "teacher"
        write_teacher(model, image_size, teacher)
        for name in ("nothing", *ALGORITHMS):
            command = [sys.executable, __file__, "--algorithm", name, "--model", model, "--teacher", str(teacher)]
            command += ["--batch-size", str(batch_size), "--image-size", str(image_size)]
            result = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            found[name] = json.loads(result.stdout.splitlines()[-1])["mib"]
    images = f"{batch_size} labeled and {RATIO * batch_size} unlabeled images a step"
    print(f"{model} at {image_size} pixels, {images}\n")
    print("| algorithm | peak memory, MiB | of Meta Pseudo Labels' |\n| --- | ---: | ---: |")
    for name in ALGORITHMS:
        memory = found[name] - found["nothing"]
        print(f"| {name} | {memory:,.0f} | {memory / (found['meta_pseudo_labels'] - found['nothing']):.2f} |")


if __name__ == "__main__":
    main()
