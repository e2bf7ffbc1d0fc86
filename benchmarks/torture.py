"""Bit flips and cuts in every kind of file that a project has: are they noticed by who reads it?

    make torture            # 3,000 faults, two minutes
    python benchmarks/torture.py --faults 100

Each fault is one flipped bit, one zeroed block, or a cut, in one file. What is read afterwards has to be right, or a
UserError has to name the file. ``silent`` is a wrong result without a word, ``traceback`` any other error.
"""

import argparse
import contextlib
import io
import random
import tarfile
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from selftrain.corpus.ingest import ingest
from selftrain.corpus.sources import find_images
from selftrain.images.index import load_index
from selftrain.images.loading import ImageLoader
from selftrain.params.ingest import IngestConfig
from selftrain.params.select import SelectConfig
from selftrain.plumbing.errors import UserError
from selftrain.selection.select import select
from selftrain.tables.manifest import find_rows, manifest_parts, read_manifest
from selftrain.tables.parquet import collect
from selftrain.tables.predictions import PredictionPart, read_part, write_part
from selftrain.tables.selection import scan_selection, selection_parts
from selftrain.training.checkpoint import load_checkpoint, save_checkpoint

CLASSES = ["cat", "dog", "owl"]
OUTCOMES = ("noticed", "harmless", "silent", "traceback")


@dataclass(frozen=True)
class Kind:
    """A kind of file: one of them, and what reads it."""

    name: str
    file: Path
    read: Callable[[], Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--faults", type=int, default=3000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch, contextlib.chdir(scratch):
        counted = torture(Path(scratch), options.faults, options.seed)
    print(f"| file | {' | '.join(OUTCOMES)} |\n| --- |{' ---: |' * len(OUTCOMES)}")
    for name, outcomes in counted.items():
        print(f"| {name} | {' | '.join(f'{outcomes[outcome]:,}' for outcome in OUTCOMES)} |")
    wrong = sum(outcomes["silent"] + outcomes["traceback"] for outcomes in counted.values())
    raise SystemExit(1 if wrong else 0)


def torture(folder: Path, faults: int, seed: int) -> dict[str, Counter[str]]:
    """Outcomes of so many faults, by kind of file."""
    kinds, draw = make_project(folder), random.Random(seed)
    counted: dict[str, Counter[str]] = {kind.name: Counter() for kind in kinds}
    right = {kind.name: quiet(kind.read) for kind in kinds}
    for number in range(faults):
        kind = kinds[number % len(kinds)]
        whole = kind.file.read_bytes()
        kind.file.write_bytes(damaged(whole, draw))
        try:
            outcome = "harmless" if quiet(kind.read) == right[kind.name] else "silent"
        except UserError:
            outcome = "noticed"
        except Exception:  # noqa: BLE001, it is what is counted
            outcome = "traceback"
        counted[kind.name][outcome] += 1
        kind.file.write_bytes(whole)
    return counted


def damaged(whole: bytes, draw: random.Random) -> bytes:
    data, place = bytearray(whole), draw.randrange(len(whole))
    fault = draw.choice(["bit", "bit", "bit", "block", "cut"])
    if fault == "bit":
        data[place] ^= 1 << draw.randrange(8)
    elif fault == "block":
        data[place : place + 512] = bytes(len(data[place : place + 512]))
    else:
        del data[place:]
    return bytes(data)


def quiet(read: Callable[[], Any]) -> Any:
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        return read()


def make_project(folder: Path) -> list[Kind]:
    """A corpus of 60 images, a teacher's table, a selection and checkpoints, and what reads each of them."""
    rng = np.random.default_rng(0)
    for split, images in (("labeled", 9), ("validation", 6), ("test", 6), ("pool", 39)):
        for number in range(images):
            path = folder / "in" / split / ("" if split == "pool" else CLASSES[number % 3]) / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, 256, (12, 12, 3), dtype=np.uint8)).save(path)
    archive = folder / "in" / "pool.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        for path in sorted((folder / "in" / "pool").iterdir()):
            tar.add(path, path.name)
    splits = {"labeled": "labeled", "unlabeled": "pool", "validation": "validation", "test": "test"}
    config = IngestConfig.model_validate({"root": "in", **{split: {"images": name} for split, name in splits.items()}})
    corpus, table, chosen = folder / "corpus", folder / "predictions", folder / "selection"
    quiet(lambda: ingest(config, 0, corpus))
    pool = corpus / "unlabeled"
    keys = read_manifest(pool, ["key"])["key"].to_numpy()
    log_probs = np.log(rng.dirichlet(np.full(3, 0.3), len(keys)) + 1e-6).astype(np.float16)
    labels, confidences = log_probs.argmax(1).astype(np.int32), np.exp(log_probs.max(1)).astype(np.float32)
    write_part(table, 0, PredictionPart(keys, labels, confidences, log_probs), CLASSES, "weights:code:images")
    settings = SelectConfig(threshold=0.2)
    quiet(lambda: select(settings, 0, table, corpus, chosen))
    checkpoints = folder / "checkpoints"
    for step in (1, 2):
        save_checkpoint(
            checkpoints, step, {"step": step, "weights": torch.full((40,), float(step)), "best": [0.5, step]}
        )
    index = load_index(pool)

    def images() -> list[bytes]:
        return [ImageLoader(index).image(row).tobytes() for row in range(len(index))]

    def checkpoint() -> tuple[int, list[float]]:
        state = load_checkpoint(checkpoints)
        assert state is not None
        found = (state["step"], state["weights"].tolist())
        if found == (1, [1.0] * 40):  # the one before, which is whole
            raise UserError("passed over")
        return found

    def archived() -> list[bytes]:
        found = find_images(Path("in"), ["pool.tar.gz"], labeled=False, classes=None, ignored=Counter())
        return [image.read() for image in list(found)]

    def decided() -> str:
        return str(select(settings, 0, table, corpus, folder / "again")["digest"])

    def whole_table() -> list[Any]:
        part = read_part(next(table.glob("part-*.parquet")))
        return [part.keys.tolist(), part.labels.tolist(), part.confidences.tolist(), part.log_probs.tobytes()]

    return [
        Kind("shard, read", next(pool.glob("shard-*.tar")), images),
        Kind("manifest part", manifest_parts(pool)[0], lambda: find_rows(pool, keys.tolist()).rows()),
        Kind("prediction part, by select", next(table.glob("part-*.parquet")), decided),
        Kind("prediction part, whole", next(table.glob("part-*.parquet")), whole_table),
        Kind("selection part", selection_parts(chosen)[0], lambda: collect(scan_selection(chosen), chosen).rows()),
        Kind("checkpoint", checkpoints / "step-0000000002.safetensors", checkpoint),
        Kind("compressed archive", archive, archived),
    ]


if __name__ == "__main__":
    main()
