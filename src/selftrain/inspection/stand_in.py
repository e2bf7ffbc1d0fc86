"""A stand-in for the person who corrects: it knows hidden truth. For examples and measurements alone."""

import datetime
from collections.abc import Sequence
from pathlib import Path

from selftrain.plumbing.errors import UserError
from selftrain.tables.corpus import classes_of
from selftrain.tables.corrections import CORRECT, REJECT, no_corrections, read_corrections, write_corrections
from selftrain.tables.manifest import find_rows
from selftrain.tables.parquet import read_frame
from selftrain.tables.truth import NO_CLASS, TRUTH

STAND_IN = "stand-in"
WHEN = datetime.datetime(2000, 1, 1, tzinfo=datetime.UTC)


def correct_by_truth(keys: Sequence[int], labels: Sequence[int] | None, corpus: Path, path: Path) -> int:
    """Write the corrections of a person who looked at some images and knows them all; return how many.

    ``labels`` are the pseudo-labels: an image of another class gets its own, one of none is rejected, a right label is
    left as it is. None: nobody has labeled them, and all are told. Raises UserError if the file has another person's
    corrections, or if an image's truth is not known.
    """
    import polars as pl

    classes = classes_of(corpus)
    if path.exists() and set(read_corrections(path)["who"]) - {STAND_IN}:
        raise UserError(
            f"{path}: has people's corrections, which this example would overwrite; move the file away first"
        )
    truth = dict(read_frame(corpus / TRUTH).iter_rows())
    hashes = dict(find_rows(corpus / "unlabeled", keys).select("key", "sha256").iter_rows())
    rows = []
    for key, label in zip(keys, [None] * len(keys) if labels is None else labels, strict=True):
        if key not in truth:
            raise UserError(f"{corpus / TRUTH}: nobody knows the truth of image {key}, so nobody can stand in")
        if truth[key] == label:
            continue
        class_name = None if truth[key] == NO_CLASS else classes[truth[key]]
        action = REJECT if class_name is None else CORRECT
        rows.append(
            {"key": key, "action": action, "label": class_name, "who": STAND_IN, "when": WHEN, "sha256": hashes[key]}
        )
    write_corrections(path, pl.DataFrame(rows, schema=no_corrections().schema, orient="row"))
    return len(rows)
