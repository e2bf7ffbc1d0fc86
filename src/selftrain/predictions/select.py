"""The stage ``select``: filter by confidence, balance the classes, drop leaks and duplicates.

Noisy Student (Xie et al. 2020, arXiv 1911.04252), Section 3.1: of the images above the threshold, every
class keeps its K most confident; a class with fewer repeats some at random until it has K.

The table is never held in memory: one scan counts, DuckDB finds each class's cut-off (spilling to disk if
it must), and a pass over the parts writes the decisions.
"""

import hashlib
import math
import shutil
import statistics
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from selftrain.counters import mix
from selftrain.errors import UserError
from selftrain.files import atomic_path, write_json
from selftrain.predictions import selection
from selftrain.predictions.config import SelectConfig
from selftrain.predictions.table import prediction_classes, prediction_parts
from selftrain.progress import progress_bar

if TYPE_CHECKING:
    import duckdb
    import polars as pl

MEMORY_LIMIT = "2GB"
SAMPLE = 1
"""Names the stream of random numbers that draws the share of the pool; the extra copies' has no name."""

# NaN compares as the largest number in SQL; it must never pass for a high confidence. Parquet's statistics
# leave NaN out, and DuckDB 2.0, believing them, drops `NOT isnan(…)` as always true: hence the setting in `select`.
CANDIDATES = """
CREATE VIEW candidates AS
SELECT key, label, confidence FROM predictions
WHERE confidence > {threshold}::FLOAT AND NOT isnan(confidence) AND in_sample(key)
    AND key NOT IN (SELECT key FROM repeats)
"""

LAST_KEPT = """
SELECT label, confidence, key FROM (
    SELECT *, row_number() OVER (PARTITION BY label ORDER BY confidence DESC, key) AS rank
    FROM candidates JOIN plan USING (label) WHERE plan.candidates > plan.kept
) WHERE rank = kept
"""

LAST_WITH_EXTRA_COPY = """
SELECT label, lot FROM (
    SELECT label, extra, lot, row_number() OVER (PARTITION BY label ORDER BY lot) AS rank
    FROM (SELECT label, extra, draw_lot(key) AS lot FROM candidates JOIN plan USING (label) WHERE plan.extra > 0)
) WHERE rank = extra
"""


@dataclass(frozen=True)
class ClassPlan:
    """How one class is brought to its quota."""

    label: int
    candidates: int
    """Images that passed the filter."""
    kept: int
    copies: int
    """Copies of every kept image."""
    extra: int
    """Kept images that get one copy more."""


def plan_classes(
    candidates: dict[int, int], per_class: int | str, max_copies: int
) -> tuple[int | None, list[ClassPlan]]:
    """From the images that passed the filter, by class, to the quota K (None: no balancing) and each class's plan."""
    if per_class == "all":
        return None, [ClassPlan(label, count, count, 1, 0) for label, count in sorted(candidates.items())]
    present = [count for count in candidates.values() if count > 0]
    quota = math.ceil(statistics.median(present)) if per_class == "auto" else int(per_class)
    plans = []
    for label, count in sorted(candidates.items()):
        kept = min(count, quota)
        copies, extra = divmod(min(quota, kept * max_copies), kept) if kept else (0, 0)
        plans.append(ClassPlan(label, count, kept, copies, extra))
    return quota, plans


def select(config: SelectConfig, seed: int, predictions: Path, repeats: Path, out: Path) -> dict[str, Any]:
    """Decide on every image of ``predictions`` (the unlabeled split's table) and write the selection to ``out``.

    ``repeats`` is the corpus's ``duplicates.parquet``. Returns the summary that is written to ``summary.json``.

    Raises UserError if nothing passes the filter.
    """
    import duckdb
    import polars as pl

    if not repeats.is_file():
        raise UserError(f"{repeats}: no such file; `dvc repro ingest` makes it")
    classes = prediction_classes(predictions)
    parts = prediction_parts(predictions)
    with tempfile.TemporaryDirectory() as spill, duckdb.connect() as connection:
        connection.execute(f"SET memory_limit = '{MEMORY_LIMIT}'; SET temp_directory = '{spill}'")
        connection.execute("SET disabled_optimizers = 'statistics_propagation'")
        connection.read_parquet([str(part) for part in parts]).create_view("predictions")
        kinds = pl.read_parquet(repeats, columns=["key", "kind"], glob=False)
        kinds = kinds if config.repeats == "drop" else kinds.clear()
        connection.register("repeats", kinds.to_arrow())
        _create_in_sample(connection, config.share, seed)
        connection.execute(CANDIDATES.format(threshold=config.threshold))
        counts = dict(connection.execute("SELECT label, count(*) FROM candidates GROUP BY label").fetchall())
        if not counts:
            raise UserError(_nothing_passed(connection, config.threshold, predictions))
        quota, plans = plan_classes(counts, config.per_class, config.max_copies)
        plan = _cutoffs(connection, plans, seed)

    shutil.rmtree(out, ignore_errors=True)
    digest = hashlib.sha256()
    totals: dict[tuple[int, str], tuple[int, int]] = {}
    with progress_bar(f"select {out.name}", total=len(parts)) as advance:
        for part in parts:
            decided = _decide(part, kinds, plan, config, seed)
            with atomic_path(out / part.name) as temporary:
                decided.write_parquet(temporary, compression="zstd")
            digest.update((out / part.name).read_bytes())
            for label, decision, images, copies in _count(decided).iter_rows():
                before = totals.get((label, decision), (0, 0))
                totals[label, decision] = (before[0] + images, before[1] + copies)
            advance()
    summary = _summary(totals, classes, config, quota, digest.hexdigest()[:32])
    assert {p.label: p.kept for p in plans} == {
        p.label: totals.get((p.label, selection.KEPT), (0, 0))[0] for p in plans
    }
    write_json(out / "summary.json", summary)
    return summary


def _cutoffs(connection: "duckdb.DuckDBPyConnection", plans: list[ClassPlan], seed: int) -> "pl.DataFrame":
    """One row a class: its plan, where its quota cuts, and where its extra copies end."""
    import polars as pl
    import pyarrow as pa

    def draw_lot(keys: pa.Array) -> pa.Array:
        return pa.array(mix(seed, keys.to_numpy()))

    plan = pl.DataFrame(plans, schema_overrides={"label": pl.Int32})
    connection.register("plan", plan.to_arrow())
    connection.create_function("draw_lot", draw_lot, ["BIGINT"], "UBIGINT", type="arrow")  # type: ignore[call-overload]
    last_kept = pl.DataFrame(connection.sql(LAST_KEPT).to_arrow_table())
    last_extra = pl.DataFrame(connection.sql(LAST_WITH_EXTRA_COPY).to_arrow_table())
    connection.remove_function("draw_lot")
    return plan.join(
        last_kept.rename({"confidence": "last_confidence", "key": "last_key"}), on="label", how="left"
    ).join(last_extra.rename({"lot": "last_lot"}), on="label", how="left")


def in_sample(keys: NDArray[np.int64], share: float, seed: int) -> NDArray[np.bool_]:
    """Which images a random share of the pool holds, (N,); a larger share holds those of a smaller one."""
    if share == 1:
        return np.ones(len(keys), dtype=bool)
    sampled: NDArray[np.bool_] = mix(seed, SAMPLE, keys) < np.uint64(share * 2**64)
    return sampled


def _create_in_sample(connection: "duckdb.DuckDBPyConnection", share: float, seed: int) -> None:
    import pyarrow as pa

    if share == 1:
        connection.execute("CREATE MACRO in_sample(key) AS true")
        return

    def sampled(keys: pa.Array) -> pa.Array:
        return pa.array(in_sample(keys.to_numpy(), share, seed))

    connection.create_function("in_sample", sampled, ["BIGINT"], "BOOLEAN", type="arrow")  # type: ignore[call-overload]


def _decide(part: Path, kinds: "pl.DataFrame", plan: "pl.DataFrame", config: SelectConfig, seed: int) -> "pl.DataFrame":
    """One part's decisions, rows in the part's order; ``kinds`` has the leaks and duplicates."""
    import polars as pl

    rows = pl.read_parquet(part, columns=["key", "label", "confidence"], glob=False)
    keys = rows["key"].to_numpy()
    confidence, last = pl.col("confidence"), pl.col("last_confidence")
    passes = (confidence > pl.lit(config.threshold, pl.Float32)) & confidence.is_not_nan()
    within_quota = last.is_null() | (confidence > last) | ((confidence == last) & (pl.col("key") <= pl.col("last_key")))
    decision = (
        pl.when(pl.col("kind").is_not_null())
        .then(pl.col("kind"))
        .when(~pl.col("sampled"))
        .then(pl.lit(selection.NOT_SAMPLED))
        .when(~passes)
        .then(pl.lit(selection.LOW_CONFIDENCE))
        .when(~within_quota)
        .then(pl.lit(selection.OVER_QUOTA))
        .otherwise(pl.lit(selection.KEPT))
    )
    extra = pl.col("last_lot").is_not_null() & (pl.col("lot") <= pl.col("last_lot"))
    copies = pl.when(pl.col("decision") == selection.KEPT).then(pl.col("copies") + extra.cast(pl.Int64)).otherwise(0)
    return (
        rows.with_columns(
            lot=pl.Series(mix(seed, keys), dtype=pl.UInt64),
            sampled=pl.Series(in_sample(keys, config.share, seed), dtype=pl.Boolean),
        )
        .join(kinds, on="key", how="left", maintain_order="left")
        .join(plan, on="label", how="left", maintain_order="left")
        .with_columns(decision=decision)
        .with_columns(copies=copies.cast(pl.Int32))
        .select("key", "label", "confidence", "decision", "copies")
    )


def _count(decided: "pl.DataFrame") -> "pl.DataFrame":
    import polars as pl

    return decided.group_by("label", "decision").agg(pl.len().alias("images"), pl.col("copies").sum())


def _summary(
    totals: dict[tuple[int, str], tuple[int, int]],
    classes: list[str],
    config: SelectConfig,
    quota: int | None,
    digest: str,
) -> dict[str, Any]:
    def total(decision: str, column: int, label: int | None = None) -> int:
        return sum(
            counts[column]
            for (of_label, of_decision), counts in totals.items()
            if of_decision == decision and label in (None, of_label)
        )

    images = sum(counts[0] for counts in totals.values())
    decisions = {decision: total(decision, 0) for decision in selection.DECISIONS}
    assert images == sum(decisions.values())
    return {
        "images": images,
        "coverage": decisions[selection.KEPT] / images,
        "decisions": decisions,
        "per_class_quota": quota,
        "threshold": config.threshold,
        "unique_images": decisions[selection.KEPT],
        "balanced_images": total(selection.KEPT, 1),
        "per_class": {
            name: {decision: total(decision, 0, label) for decision in selection.DECISIONS}
            | {"copies": total(selection.KEPT, 1, label)}
            for label, name in enumerate(classes)
        },
        "digest": digest,
    }


def _nothing_passed(connection: "duckdb.DuckDBPyConnection", threshold: float, predictions: Path) -> str:
    usable = "NOT isnan(confidence) AND in_sample(key) AND key NOT IN (SELECT key FROM repeats)"
    highest, highest_usable = (
        (connection.execute(f"SELECT max(confidence) FROM predictions WHERE {condition}").fetchone() or (None,))[0]
        for condition in ("NOT isnan(confidence)", usable)
    )
    if highest is None:
        return f"{predictions}: every confidence is NaN; the teacher did not learn, so train it anew"
    if highest_usable is None:
        return (
            f"{predictions}: leaks, duplicates and `select.share` leave no image at all; look at "
            "data/corpus/duplicates.parquet, or use a larger share"
        )
    return (
        f"select.threshold: {threshold:g} filters out every image of {predictions}; the highest confidence of those "
        f"that may be used is {highest_usable:.3f}, so choose a lower threshold or a better teacher"
    )
