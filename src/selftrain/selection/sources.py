"""What a selection decides on: a teacher's predictions and what lies beside them, on disk or in memory."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from selftrain.plumbing.errors import UserError
from selftrain.selection.gate import Gate
from selftrain.tables.corpus import CLASSES, classes_of
from selftrain.tables.embeddings import existing_embeddings
from selftrain.tables.held_out import HeldOut, load_held_out
from selftrain.tables.keys import part_name, shard_of, shard_of_part
from selftrain.tables.manifest import manifest_parts, read_manifest
from selftrain.tables.parquet import column_names, read_arrow, read_frame, stamps
from selftrain.tables.predictions import (
    EMBEDDED_CLASSES,
    MADE_FROM,
    no_prediction,
    prediction_classes,
    prediction_parts,
    read_log_probs,
)

if TYPE_CHECKING:
    import polars as pl


AGAIN = "remove the file and run `dvc repro` to predict it again"
CHECKED = ("key", "label", "confidence")
"""Columns that are looked at whatever is read."""


class Source(Protocol):
    """The teacher's predictions that are decided on, and what lies beside them."""

    def parts(self, columns: list[str]) -> "Iterator[pl.DataFrame]":
        """The table of the pool, part by part."""

    def kept_classes(self, rows: "pl.DataFrame") -> NDArray[np.unsignedinteger] | None:
        """The classes whose own probabilities the table keeps of rows of one part, (N, K); None: of all classes."""

    def validation(self) -> HeldOut:
        """The teacher on the validation split. Raises UserError if there is none."""

    def earlier(self, part_of: int) -> "list[pl.DataFrame]":
        """``key, label`` of the part with this key, from the tables of the teacher's own teachers."""

    def gate(self, share: float) -> Gate:
        """The gate of the chain's first teacher. Raises UserError if it lacks what that needs."""

    def labeled_counts(self) -> NDArray[np.int64]:
        """Labeled images a class, (C,). Raises UserError if nobody knows them."""

    def embeddings(self) -> Path:
        """The folder of the teacher's embeddings of the pool. Raises UserError if there is none."""


class Tables:
    """A source on disk: a round's teacher's folder of predictions."""

    def __init__(self, predictions: Path, corpus: Path, earlier: tuple[Path, ...] = ()) -> None:
        """``predictions`` and ``earlier`` are tables of the unlabeled split; ``earlier`` are of the teacher's own
        teachers, the first one last. Raises UserError for a table that is not of one piece or not of this corpus.
        """
        self.predictions, self.corpus, self.earlier_tables = predictions, corpus, earlier
        self.classes = prediction_classes(predictions)
        self.first_table = (predictions, *earlier)[-1]
        self._looked_at: set[str] = set()
        check_table(predictions, corpus, self.classes)

    def parts(self, columns: list[str]) -> "Iterator[pl.DataFrame]":
        """See ``Source``."""
        return (self.read(part, columns) for part in prediction_parts(self.predictions))

    def read(self, part: Path, columns: list[str]) -> "pl.DataFrame":
        """Some columns of a part of the table; ``log_probs`` are arrays of all classes' numbers.

        Raises UserError, naming the first row, for rows that are no valid predictions, and for images that are not the
        corpus'.
        """
        import polars as pl

        rows = read_frame(part, list(dict.fromkeys([*CHECKED, *(name for name in columns if name != "log_probs")])))
        if "log_probs" in columns:
            rows = rows.with_columns(pl.Series("log_probs", read_log_probs(part).of_all_classes()))
        _check_rows(rows, part, len(self.classes))
        if part.name not in self._looked_at:
            check_keys(rows["key"].to_numpy(), part, self.corpus / "unlabeled")
            self._looked_at.add(part.name)
        return rows.select(columns)

    def kept_classes(self, rows: "pl.DataFrame") -> NDArray[np.unsignedinteger] | None:
        """See ``Source``."""
        keys = rows["key"].to_numpy()
        part = self.predictions / part_name(shard_of(int(keys[0])))
        if "classes" not in column_names(part):
            return None
        classes = read_log_probs(part).classes
        assert classes is not None
        return classes[np.isin(read_frame(part, ["key"])["key"].to_numpy(), keys)]

    def validation(self) -> HeldOut:
        """See ``Source``."""
        return load_held_out(self.predictions.parent, self.corpus, "validation")

    def earlier(self, part_of: int) -> "list[pl.DataFrame]":
        """See ``Source``."""
        name = part_name(shard_of(part_of))
        return [read_frame(table / name, ["key", "label"]) for table in self.earlier_tables]

    def gate(self, share: float) -> Gate:
        """See ``Source``."""
        return Gate(share, self.first_table.parent, self.corpus)

    def labeled_counts(self) -> NDArray[np.int64]:
        """See ``Source``."""
        labels = read_manifest(self.corpus / "labeled", ["label"])["label"].to_numpy()
        return np.bincount(labels, minlength=len(self.classes))

    def embeddings(self) -> Path:
        """See ``Source``."""
        return existing_embeddings(self.predictions.parent, "`select.policy`")


class Frame:
    """A source in memory: a prediction table and nothing else."""

    def __init__(self, rows: "pl.DataFrame") -> None:
        self.rows = rows

    def parts(self, columns: list[str]) -> "Iterator[pl.DataFrame]":
        """See ``Source``. Raises UserError for a column that the frame lacks."""
        missing = [name for name in columns if name not in self.rows.columns]
        if missing:
            raise UserError(f"select: this policy reads the column '{missing[0]}', which the frame does not have")
        yield self.rows.select(columns)

    def kept_classes(self, rows: "pl.DataFrame") -> NDArray[np.unsignedinteger] | None:
        """See ``Source``."""
        return None

    def validation(self) -> HeldOut:
        """See ``Source``."""
        raise UserError("select: this policy needs validation images, which a frame does not have; use the stage")

    def earlier(self, part_of: int) -> "list[pl.DataFrame]":
        """See ``Source``."""
        return []

    def gate(self, share: float) -> Gate:
        """See ``Source``."""
        raise UserError("select.gate: it needs validation images, which a frame does not have; use the stage")

    def labeled_counts(self) -> NDArray[np.int64]:
        """See ``Source``."""
        raise UserError("select: a frame knows no labeled images; use the stage, or `prior: uniform`")

    def embeddings(self) -> Path:
        """See ``Source``."""
        raise UserError("select: this policy needs embeddings, which a frame does not have; use the stage")


def check_table(predictions: Path, corpus: Path, classes: list[str]) -> None:
    """Raises UserError unless a table has the pool's parts, all of one model and of the corpus' classes."""
    parts = {part.name: part for part in prediction_parts(predictions)}
    wanted = {part.name for part in manifest_parts(corpus / "unlabeled")}
    for name in sorted(parts.keys() ^ wanted):
        what = "has no predictions" if name in wanted else "is not in the corpus"
        raise UserError(f"{predictions / name}: the shard {shard_of_part(name)} {what}; {AGAIN}")
    if classes != classes_of(corpus):
        raise UserError(f"{predictions}: was made for other classes than {corpus / CLASSES} has; {AGAIN}")
    models: dict[str, str] = {}
    for name, part in parts.items():
        found = stamps(part, []) or {}
        models.setdefault(found.get(MADE_FROM, b"").decode().rpartition(":")[0], name)
        if len(models) > 1 or json.loads(found.get(EMBEDDED_CLASSES, b"[]")) != classes:
            first, other = next(iter(models.values())), name
            raise UserError(f"{predictions}: {first} and {other} are not of one model; {AGAIN}")


def check_keys(keys: NDArray[np.int64], part: Path, split_folder: Path) -> None:
    """Raises UserError, naming the first one, unless a part's keys are those of the manifest's part."""
    known = read_arrow(split_folder / "manifest" / part.name, ["key"])["key"].to_numpy()
    if np.array_equal(keys, known):
        return
    for key in np.setxor1d(keys, known):
        what = "is missing" if key in known else "is not in the corpus"
        raise UserError(f"{part}: the image {key} {what}; {AGAIN}")


def _check_rows(rows: "pl.DataFrame", part: Path, num_classes: int) -> None:
    """Raises UserError, naming the first row, for rows that are no valid predictions."""
    import polars as pl

    label, key = pl.col("label"), pl.col("key")
    wrong = {
        **no_prediction(),
        f"label is not from 0 to {num_classes - 1}": ~label.is_between(0, num_classes - 1),
        "key is not above the row before": key.diff() <= 0,
    }
    # All in one query: parts may be short and many.
    if not any(rows.select(found.any().alias(what) for what, found in wrong.items()).row(0)):
        return
    for what, found in wrong.items():
        numbered = rows.with_row_index("row", offset=1).filter(found)
        if len(numbered):
            row = numbered.row(0, named=True)
            shown = f"key {row['key']}, label {row['label']}, confidence {row['confidence']}"
            raise UserError(f"{part}: row {row['row']} ({shown}): its {what}; {AGAIN}")


def unpacked(rows: "pl.DataFrame") -> NDArray[np.float64]:
    """The column ``log_probs``, (N, C)."""
    return rows["log_probs"].to_numpy().astype(np.float64)


def pool_sums(source: Source) -> tuple[int, float, NDArray[np.float64]]:
    """(images, the sum of their confidences, that of their probabilities (C,)) of the pool, without what is NaN."""
    images, confidence, probs = 0, 0.0, np.zeros(())
    for part in source.parts(["confidence", "log_probs"]):
        if len(part):
            known = part["confidence"].is_not_nan().to_numpy()
            images += int(known.sum())
            confidence += float(part["confidence"].to_numpy()[known].sum(dtype=np.float64))
            probs = probs + np.exp(unpacked(part)[known]).sum(axis=0)
    return images, confidence, probs
