"""Tables of a round that are written down, for what selects from them."""

import math
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from selftrain.plumbing.files import write_json
from selftrain.tables.corrections import no_corrections
from selftrain.tables.keys import make_key, part_name, shard_of
from selftrain.tables.parquet import write_frame
from selftrain.tables.predictions import PredictionPart, write_part

CLASSES = ["a", "b", "c"]
NOW = datetime(2026, 11, 20, tzinfo=UTC)
SHARD = 7
Rows = list[tuple[int, float]]


def write_predictions(folder: Path, rows: Rows) -> list[int]:
    """Write (label, confidence) rows as a prediction table; returns their keys."""
    keys = [make_key("unlabeled", number // SHARD, number % SHARD) for number in range(len(rows))]
    for shard in range(math.ceil(len(rows) / SHARD)):
        part = slice(shard * SHARD, (shard + 1) * SHARD)
        labels, confidences = zip(*rows[part], strict=True)
        log_probs = np.zeros((len(labels), len(CLASSES)), np.float16)
        arrays = (np.array(keys[part]), np.array(labels, np.int32), np.array(confidences, np.float32), log_probs)
        write_part(folder, shard, PredictionPart(*arrays), CLASSES, "test")
    return keys


def write_corpus(folder: Path, repeats: dict[int, str], keys: list[int] | None = None) -> Path:
    """As much of a corpus as ``select`` looks at: repeats (“near leak”: an altered copy), the pool's manifest."""
    folder.mkdir(parents=True)
    schema = {"key": pl.Int64, "kind": pl.String, "of_key": pl.Int64, "match": pl.String}
    kinds = [
        (key, kind.removeprefix("near "), 0, "near" if "near" in kind else "exact") for key, kind in repeats.items()
    ]
    write_frame(pl.DataFrame(kinds, schema=schema, orient="row"), folder / "duplicates.parquet")
    write_json(folder / "classes.json", CLASSES)
    manifest = folder / "unlabeled" / "manifest"
    manifest.mkdir(parents=True)
    columns = {"format": "PNG", "shard": "s", "offset": 0, "size": 0, "xxh3": 0, "label": None, "source": "s"}
    types = {"offset": pl.Int64, "size": pl.Int32, "label": pl.Int32}
    for shard in {shard_of(key) for key in keys or []}:
        rows = [{"key": key, "sha256": sha256(key)} | columns for key in keys or [] if shard_of(key) == shard]
        write_frame(pl.DataFrame(rows, schema_overrides=types), manifest / part_name(shard))
    return folder


def sha256(key: int) -> bytes:
    return key.to_bytes(32, "big", signed=True)


def correction(key: int, label: str | None = None, **other: Any) -> dict[str, Any]:
    """A row of corrections.parquet: rejected without a label."""
    row = {
        "key": key,
        "action": "correct" if label else "reject",
        "label": label,
        "who": "me",
        "when": NOW,
        "sha256": sha256(key),
    }
    return row | other


def write_rows(path: Path, rows: list[dict[str, Any]]) -> Path:
    pl.DataFrame(rows, schema=no_corrections().schema).write_parquet(path)
    return path
