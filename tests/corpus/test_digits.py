import csv
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

from selftrain.corpus.digits import write_digits
from selftrain.tables.keys import SPLITS
from selftrain.tables.manifest import read_manifest
from tests.conftest import SMALL_DIGITS


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.*")}


def test_every_digit_is_somewhere_once(tmp_path: Path) -> None:
    write_digits(SMALL_DIGITS, 0, tmp_path)
    images = sorted(np.asarray(Image.open(path)).tobytes() for path in tmp_path.rglob("*.png"))
    digits = [np.rint(image * 255 / 16).astype(np.uint8).tobytes() for image in load_digits().images]
    assert len(images) == 1797 + 20
    remaining = list(images)
    for digit in digits:
        remaining.remove(digit)
    assert len(remaining) == 20


def test_answers_of_a_person_stay(tmp_path: Path) -> None:
    out = tmp_path / "with answers"
    write_digits(SMALL_DIGITS, 0, out)
    (out / "labeled" / "3" / "answer-1-image.png").write_bytes(b"an image")
    (out / "answers.csv").write_text("file,label\n")
    write_digits(SMALL_DIGITS, 1, out)
    found = tree(out)
    assert found.pop("labeled/3/answer-1-image.png") == b"an image"
    assert found.pop("answers.csv") == b"file,label\n"
    write_digits(SMALL_DIGITS, 1, tmp_path / "anew")
    assert found == tree(tmp_path / "anew")


def test_the_seed_changes_what_is_labeled_and_never_what_is_tested(tmp_path: Path) -> None:
    for seed in (0, 0, 1):
        write_digits(SMALL_DIGITS, seed, tmp_path / str(seed))
    zero, one = tree(tmp_path / "0"), tree(tmp_path / "1")
    for split in ("validation", "test"):
        assert {n: d for n, d in zero.items() if n.startswith(split)} == {
            n: d for n, d in one.items() if n.startswith(split)
        }
    assert {n for n in zero if n.startswith("labeled")} != {n for n in one if n.startswith("labeled")}
    assert sum(n.startswith("test") for n in zero) == 50


def test_truth_matches_the_images(tmp_path: Path) -> None:
    write_digits(SMALL_DIGITS, 3, tmp_path)
    digits = load_digits()
    known = {
        np.rint(i * 255 / 16).astype(np.uint8).tobytes(): str(t)
        for i, t in zip(digits.images, digits.target, strict=True)
    }
    with (tmp_path / "truth.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 1797 - 120 + 20
    for row in rows:
        assert row["label"] == known.get(np.asarray(Image.open(tmp_path / row["file"])).tobytes(), "")


def test_ingested_splits(digits_corpus: Path) -> None:
    counts = [read_manifest(digits_corpus / split, ["key"]).num_rows for split in SPLITS]
    assert counts == [30, 1697, 40, 50]
