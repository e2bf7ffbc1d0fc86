"""How many of the wrong pseudo-labels the first of the review list hold, against a list by confidence.

    python benchmarks/review.py                      # the digits, five seeds, in the clones of `make seeds`
    python benchmarks/review.py --images cifar10     # any folder with train/<class> and test/<class>

Of a folder's training images, 90% become the pool, with their classes as hidden truth, 4% validation, and the rest is
labeled; a small network, two rounds, some minutes on 2 cores for CIFAR-10.
"""

import argparse
import json
import os
import subprocess
from functools import partial
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from seeds import CLONES, MAIN, SEEDS, mean_and_interval, new_clone, run_seed

from selftrain.plumbing.files import as_file_name

SHARES = ("first_1%", "first_5%")
WAYS = ("by_quality", "by_confidence")


def of_folder(images: Path) -> dict[str, Any]:
    """Run the main job, shortened, on a folder's images in a clone; return what its review says."""
    clone = CLONES.parent / "review" / as_file_name(images.resolve())
    if not clone.exists():
        new_clone(clone, partial(prepare, images))
    subprocess.run(
        ["dvc", "repro", "--quiet"], cwd=clone, env=os.environ | {"PYTHONPATH": str(clone / "src")}, check=True
    )
    return review_of(clone)


def prepare(images: Path, clone: Path) -> None:
    """Make a clone the main job, shortened, on a folder's images."""
    yaml = YAML()
    params = yaml.load(clone / "params.yaml")
    params["ingest"] = {
        "root": str(images.resolve()),
        "labeled": {"images": "train"},
        "unlabeled": {"cut_from": "labeled", "share": 0.9},
        "validation": {"cut_from": "labeled", "share": 0.04},
        "test": {"images": "test"},
        "images_per_shard": 5000,
    }
    params["train"] |= {"batch_size": 128, "steps": 1200, "validate_every": 200}
    params["train"]["noise"] |= {"flip": 0.5, "randaugment_policy": "full"}
    params["supervised"] = {"teacher": {"train": {"algorithm": {"name": "supervised"}, "steps": 1200}}}
    del params["rounds"]["student3"]
    params["runs"] = ["teacher", "student1", "student2"]
    params["stages"]["digits"] = []
    for entry in params["rounds"].values():
        entry["select"]["threshold"] = 0.5
    yaml.dump(params, clone / "params.yaml")


def review_of(clone: Path) -> dict[str, Any]:
    """A project's ``summary.json`` of its review."""
    return dict(json.loads((clone / "review" / MAIN / "summary.json").read_text()))


def main() -> None:
    """Print a row for each round and share of the list."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, help="folder with train/<class> and test/<class>")
    images = parser.parse_args().images
    if images is None:
        for seed in SEEDS:
            run_seed(seed, MAIN)
        found = [review_of(CLONES / f"seed-{seed}") for seed in SEEDS]
    else:
        found = [of_folder(images)]
    print("| round | first | share of all errors, review | by confidence | precision, review | by confidence |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    for round_ in [name for name in found[0] if name != "out_of_domain"]:
        for share in SHARES:
            cells = []
            for figure in ("share_of_errors", "precision"):
                for way in WAYS:
                    values = [100 * one[round_][share][way][figure] for one in found]
                    cells.append(mean_and_interval(values) if len(values) > 1 else f"{values[0]:.1f}")
            print(f"| {round_} | {share.removeprefix('first_')} | {' | '.join(cells)} |")
    strangers = [one["out_of_domain"] for one in found]
    if all(one.get("of_no_class_in_pool") for one in strangers):
        precision = [100 * one["of_no_class"] / one["listed"] for one in strangers]
        base = [100 * one["of_no_class_in_pool"] / one["images"] for one in strangers]
        print(f"\nsuspected out of domain: {mean_and_interval(precision)}% are, of the pool {mean_and_interval(base)}%")


if __name__ == "__main__":
    main()
