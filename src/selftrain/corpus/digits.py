"""The built-in corpus: scikit-learn's handwritten digits as image folders, like anybody's own images."""

import contextlib
import csv
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from selftrain.corpus.answers import ANSWERS
from selftrain.corpus.source_image import ANSWER
from selftrain.params.digits import DigitsConfig

HELD_OUT_SEED = 1797
"""Validation and test never change, whatever `seed` is."""


def write_digits(config: DigitsConfig, seed: int, out: Path) -> None:
    """Write the 1,797 digits as 8×8 PNGs, and crops of two photographs among the unlabeled ones.

    ``labeled/ validation/ test/`` hold a folder a class, ``unlabeled/`` is flat, its file names say nothing of what
    is on them, and ``truth.csv`` does. ``seed`` draws the labeled images and the crops. A person's answers stay.
    """
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = np.rint(digits.images * (255 / 16)).astype(np.uint8)  # (1797, 8, 8), as grey levels 0–16 come
    held_out = config.validation_per_class + config.test_per_class
    fixed, drawn = np.random.default_rng(HELD_OUT_SEED), np.random.default_rng(seed)
    by_split: dict[str, list[tuple[int, int]]] = {"labeled": [], "validation": [], "test": []}
    pool: list[tuple[NDArray[np.uint8], str]] = []
    for label in range(10):
        members = fixed.permutation(np.flatnonzero(digits.target == label))
        by_split["validation"] += [(i, label) for i in members[: config.validation_per_class]]
        by_split["test"] += [(i, label) for i in members[config.validation_per_class : held_out]]
        rest = drawn.permutation(members[held_out:])
        by_split["labeled"] += [(i, label) for i in rest[: config.labels_per_class]]
        pool += [(images[i], str(label)) for i in rest[config.labels_per_class :]]
    pool += [(crop, "") for crop in _photograph_crops(config.out_of_domain, drawn)]

    _remove_all_but_answers(out)
    for split, chosen in by_split.items():
        for index, label in sorted(chosen):
            _save(images[index], out / split / str(label) / f"digit-{index:04d}.png")
    with _new_file(out / "truth.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["file", "label"])
        for number, place in enumerate(drawn.permutation(len(pool))):
            image, label_text = pool[place]
            name = f"unlabeled/image-{number:04d}.png"
            _save(image, out / name)
            rows.writerow([name, label_text])


def _remove_all_but_answers(out: Path) -> None:
    for path in sorted(out.rglob("*"), reverse=True):
        if path.is_dir():
            with contextlib.suppress(OSError):
                path.rmdir()
        elif path != out / ANSWERS and not path.name.startswith(ANSWER):
            path.unlink()


def _photograph_crops(count: int, rng: np.random.Generator) -> list[NDArray[np.uint8]]:
    """Grey 8×8 reductions of random squares of the two sample photographs: images that show no digit."""
    from sklearn.datasets import load_sample_images

    photographs = [Image.fromarray(image).convert("L") for image in load_sample_images().images]
    crops = []
    for number in range(count):
        photograph = photographs[number % len(photographs)]
        side = int(rng.integers(24, 200))
        left = int(rng.integers(0, photograph.width - side))
        top = int(rng.integers(0, photograph.height - side))
        square = photograph.crop((left, top, left + side, top + side))
        crops.append(np.asarray(square.resize((8, 8), Image.Resampling.BOX)))
    return crops


def _save(image: NDArray[np.uint8], path: Path) -> None:
    Image.fromarray(image).save(_new_file(path))


def _new_file(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path
