"""CIFAR-10 with 4,000 labels: every method on the same network, and the same network with all labels.

    python benchmarks/cifar10.py /path/to/cifar10                      # short.yaml: 400 steps, about an hour on 2 cores
    python benchmarks/cifar10.py /path/to/cifar10 --preset paper       # a million steps: days of a GPU

The folder holds ``train/<class>/`` and ``test/<class>/``. Each preset runs as the main job of a clone in
.selftrain/cifar10, made of what is committed; the ceiling, with every label, in a second one. What is done is not run
again.
"""

import argparse
import json
import os
import subprocess
from functools import partial
from pathlib import Path

from ruamel.yaml import YAML
from seeds import new_clone

CLONES = Path(".selftrain/cifar10").resolve()
PIPELINE = "cifar10_4k"
PRESETS = Path("pipelines") / PIPELINE
ALL_LABELS = {"splits": ["labeled", "validation"], "validation": 0.0002}


def clone(name: str, preset: str, images: Path, seed: int, all_labels: bool) -> Path:
    """A project with the preset as its main job; with ``all_labels``, its supervised run alone, on all but 20
    images.
    """
    folder = CLONES / f"{name}-{seed}"
    if not folder.exists():
        new_clone(folder, partial(prepare, preset, images, seed, all_labels))
    return folder


def prepare(preset: str, images: Path, seed: int, all_labels: bool, folder: Path) -> None:
    """Make a clone such a project."""
    (folder / "data").mkdir(exist_ok=True)
    (folder / "data" / "cifar10").symlink_to(images)
    yaml = YAML()
    params = yaml.load(PRESETS / f"{preset}.yaml")
    params["seed"] = seed
    if all_labels:
        # Neither the pool nor validation may be empty: an image a class is left to each.
        params["ingest"]["unlabeled"]["share"] = ALL_LABELS["validation"]
        params["supervised"] = {"supervised_all": params["supervised"]["supervised"]}
        params["supervised"]["supervised_all"]["train"]["resplit"] = ALL_LABELS
        params["rounds"] = {}
        params["runs"] = ["supervised_all"]
    yaml.dump(params, folder / "params.yaml")


def figures(folder: Path) -> dict[str, dict[str, float]]:
    """Each run's test accuracy, steps, images a second and peak memory."""
    found = {}
    for path in (folder / "evaluation" / PIPELINE).glob("*/metrics.json"):
        run = json.loads((folder / "models" / PIPELINE / path.parent.name / "run.json").read_text())
        metrics = json.loads(path.read_text())
        found[path.parent.name] = {
            "accuracy": metrics["test_accuracy"],
            "steps": run["steps"],
            "seconds": run["train_seconds"],
            "memory": run["peak_memory_mib"],
        }
    return found


def main() -> None:
    """Run what is missing, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", type=Path)
    parser.add_argument("--preset", choices=("short", "paper"), default="short")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    found: dict[str, dict[str, float]] = {}
    for all_labels in (False, True):
        name = f"{arguments.preset}{'-all' if all_labels else ''}"
        folder = clone(name, arguments.preset, arguments.images.resolve(), arguments.seed, all_labels)
        environment = os.environ | {"PYTHONPATH": str(folder / "src")}
        subprocess.run(["dvc", "repro", "--quiet", "evaluate"], cwd=folder, env=environment, check=True)
        found |= figures(folder)
    print("| run | test accuracy, % | steps | training, s | peak memory, MiB |")
    print("| --- | ---: | ---: | ---: | ---: |")
    for name, run in sorted(found.items(), key=lambda item: item[1]["accuracy"]):
        row = f"{100 * run['accuracy']:.1f} | {run['steps']:,} | {run['seconds']:,.0f} | {run['memory']:,}"
        print(f"| {name} | {row} |")


if __name__ == "__main__":
    main()
