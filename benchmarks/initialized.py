"""What `selftrain init` and `dvc repro` make of few labeled photographs: the last table of docs/photographs.md.

    python benchmarks/initialized.py --images FOLDER --out FOLDER [--per-class 10] [--seeds 0 1]

FOLDER has ``train``, ``validation`` and ``test`` with a folder of images a class; the pool is the rest of ``train``.
The project is what `init` writes, with the seed in it and with the pool's truth, which only the table reads. ``--out``
keeps what is done; a run that was killed goes on. A quarter of an hour a seed on 2 cores.
"""

import argparse
import csv
import json
import os
import shutil
import subprocess
from pathlib import Path

from photograph_features import lay_out
from ruamel.yaml import YAML

RUNS = ["teacher", "labeled_only", "student1", "student2", "student3"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--per-class", type=int, default=10)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    options = parser.parse_args()
    out = options.out.resolve()
    found = []
    for seed in options.seeds:
        project = project_of(options.images.resolve(), options.per_class, seed, out)
        subprocess.run(["dvc", "repro", "--quiet"], cwd=project, check=True)
        found.append({run: figures(project, run) for run in RUNS})
    print(f"| run | {' | '.join(f'seed {seed}: test | kept labels right (coverage)' for seed in options.seeds)} |")
    print(f"| --- |{' ---: | ---: |' * len(options.seeds)}")
    for run in RUNS:
        print(f"| {run} | {' | '.join(of_seed[run] for of_seed in found)} |")


def project_of(images: Path, per_class: int, seed: int, out: Path) -> Path:
    """The project of a seed, beside the folder of its images."""
    project, own = out / f"project-{per_class}-{seed}", out / f"images-{per_class}-{seed}"
    made = project / "made"
    if made.exists():
        return project
    for folder in (project, own):
        shutil.rmtree(folder, ignore_errors=True)
    files, _, pool = lay_out(images, per_class, seed, own)
    for split in ("validation", "test"):
        shutil.copytree(images / split, own / split, copy_function=os.symlink)
    with (own / "truth.csv").open("w", newline="") as truth:
        rows = csv.writer(truth)
        rows.writerow(["file", "label"])
        rows.writerows((f"pool/{place}{files[place].suffix}", files[place].parent.name) for place in pool)
    folders = [f"--{split}={own / split}" for split in ("labeled", "pool", "validation", "test")]
    subprocess.run(["selftrain", "init", str(project), *folders], check=True)
    yaml = YAML()
    params = yaml.load(project / "params.yaml")
    params["seed"] = seed
    params["ingest"]["truth"] = "truth.csv"
    yaml.dump(params, project / "params.yaml")
    made.touch()
    return project


def figures(project: Path, run: str) -> str:
    """The cells of a run: accuracy on test, then that of the labels it was trained on and their share of the pool."""
    metrics = json.loads((project / "evaluation" / "noisy_student" / run / "metrics.json").read_text())
    kept = "–"
    if "coverage" in metrics:
        kept = f"{100 * metrics['pseudo_label_accuracy']:.1f} ({100 * metrics['coverage']:.1f}%)"
    return f"{100 * metrics['test_accuracy']:.1f} | {kept}"


if __name__ == "__main__":
    main()
