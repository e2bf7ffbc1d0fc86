"""The selection: what becomes of every unlabeled image in a round, and why.

``selections/<round>/part-*.parquet``, one part a shard, one row an unlabeled image:
``key, label, confidence, decision, copies, weight``. ``copies`` is how often the balanced epoch holds it, ``weight``
what it weighs in the loss. Where predictions are aligned to a prior, ``summary.json`` has the ``shift`` of their
log-probabilities, and label and confidence are those after it.
"""

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

from selftrain.plumbing.errors import UserError
from selftrain.plumbing.files import read_json
from selftrain.tables.parquet import scan

if TYPE_CHECKING:
    import polars as pl

KEPT = "kept"
LOW_CONFIDENCE = "low_confidence"
OVER_QUOTA = "over_quota"
LEAK = "leak"
DUPLICATE = "duplicate"
NOT_SAMPLED = "not_sampled"
OUT_OF_DOMAIN = "out_of_domain"
REJECTED = "rejected"
CORRECTED = "corrected"
TRAINED_ON = (KEPT, CORRECTED)
WHATEVER_THE_THRESHOLD = (LEAK, DUPLICATE, OUT_OF_DOMAIN, REJECTED, CORRECTED)
"""Decisions that another threshold would not change."""
DECISIONS = (KEPT, LOW_CONFIDENCE, OVER_QUOTA, LEAK, DUPLICATE, NOT_SAMPLED, OUT_OF_DOMAIN, REJECTED, CORRECTED)


def selection_parts(folder: Path) -> list[Path]:
    """The parts of a selection, in shard order. Raises UserError if there is none."""
    parts = sorted(folder.glob("part-*.parquet"))
    if not parts:
        raise UserError(f"{folder}: no selection there; run `dvc repro` for the stage that makes it")
    return parts


def scan_selection(folder: Path) -> "pl.LazyFrame":
    """A selection as a lazy polars frame."""
    return scan(selection_parts(folder))


def parts_digest(folder: Path) -> str:
    """A short hash of a selection's decisions as its files have them."""
    digest = hashlib.sha256()
    for part in selection_parts(folder):
        digest.update(part.read_bytes())
    return digest.hexdigest()[:32]


def selection_shift(folder: Path) -> list[float] | None:
    """What aligned the teacher's log-probabilities to a prior, by class; None where nothing did."""
    shift: list[float] | None = read_json(folder / "summary.json", "dvc repro")["shift"]
    return shift


def selection_digest(folder: Path) -> str:
    """A short hash of a selection's decisions, from its summary."""
    return str(read_json(folder / "summary.json", "dvc repro")["digest"])
