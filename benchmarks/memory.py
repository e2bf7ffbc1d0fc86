"""Peak memory of Meta Pseudo Labels and its reduced version on the same job, beside Noisy Student and supervised
training.

    python benchmarks/memory.py                  # ResNet-50 at 224 pixels on the CPU, a few minutes
    python benchmarks/memory.py --model resnet18 --batch-size 16

Each takes three steps on random images in a process of its own. What is measured is the process's peak (resident
memory, or the GPU's allocated memory), less that of a process which loads the same libraries and makes no network.
"""

import argparse
import json
import subprocess
import sys
from typing import Any

RATIO, CLASSES, STEPS = 1, 1000, 3
ALGORITHMS = ("supervised", "noisy_student", "uda", "reduced_meta_pseudo_labels", "meta_pseudo_labels")


def train(name: str, model: str, batch_size: int, image_size: int) -> dict[str, float]:
    """Take a few steps and return the process's peak memory in MiB; ``nothing`` takes none."""
    from selftrain.algorithms.algorithm import find_algorithm
    from selftrain.hardware import HardwareConfig, peak_memory, resolve
    from selftrain.training.batches import Share
    from selftrain.training.config import TrainConfig
    from selftrain.training.loop import Loop
    from selftrain.training.networks import RunNetworks

    hardware = resolve(HardwareConfig.model_validate({"workers": 0}))
    if name != "nothing":
        algorithm_class, parameters = find_algorithm(name, {})
        config = TrainConfig.model_validate(
            {
                "algorithm": {"name": name},
                "model": model,
                "image_size": image_size,
                "batch_size": batch_size,
                "steps": STEPS,
                "optimizer": "sgd",
                "learning_rate": 0.01,
            }
        )

        classes = [str(number) for number in range(CLASSES)]
        networks = RunNetworks(None, classes, config, hardware.device)
        algorithm = algorithm_class(networks.student(None), parameters, networks)
        loop = Loop(algorithm, config, 1.0, 0, hardware, Share())
        algorithm.train()
        for _ in range(STEPS):
            loop.one_step(batch(algorithm_class.needs(parameters).views, batch_size, image_size))
    return {"mib": peak_memory(hardware.device) / 2**20}


def batch(views: dict[str, tuple[str, ...]], batch_size: int, image_size: int) -> dict[str, dict[str, Any]]:
    """Random values for every view."""
    import torch

    made = {}
    for source, names in views.items():
        count = batch_size * (1 if source == "labeled" else RATIO)
        values = {
            "label": torch.zeros(count, dtype=torch.int64) - (source == "unlabeled") * 1,
            "lot": torch.rand(count),
            "log_probs": torch.randn(count, CLASSES).log_softmax(dim=1).half(),
        }
        images = torch.randint(0, 256, (count, image_size, image_size, 3), dtype=torch.uint8)
        made[source] = {name: values.get(name, images) for name in names}
    return made


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="resnet50")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--algorithm", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.algorithm:
        print(json.dumps(train(arguments.algorithm, arguments.model, arguments.batch_size, arguments.image_size)))
        return
    found = {}
    for name in ("nothing", *ALGORITHMS):
        command = [sys.executable, __file__, "--algorithm", name, "--model", arguments.model]
        command += ["--batch-size", str(arguments.batch_size), "--image-size", str(arguments.image_size)]
        result = subprocess.run(command, capture_output=True, text=True, check=True)
        found[name] = json.loads(result.stdout.splitlines()[-1])["mib"]
    images = f"{arguments.batch_size} labeled and {RATIO * arguments.batch_size} unlabeled images a step"
    print(f"{arguments.model} at {arguments.image_size} pixels, {images}\n")
    print("| algorithm | peak memory, MiB | of Meta Pseudo Labels' |\n| --- | ---: | ---: |")
    for name in ALGORITHMS:
        own = found[name] - found["nothing"]
        print(f"| {name} | {own:,.0f} | {own / (found['meta_pseudo_labels'] - found['nothing']):.2f} |")


if __name__ == "__main__":
    main()
