"""The stage ``select``: filter by confidence, balance the classes, drop leaks and duplicates, apply corrections.

Noisy Student (Xie et al. 2020, arXiv 1911.04252), Section 3.1: of the images above the threshold, every
class keeps its K most confident; a class with fewer repeats some at random until it has K. What a person corrected
is of its class before anything that a teacher is sure of.

The table is never held in memory: one scan counts, DuckDB finds each class's cut-off (spilling to disk if
it must), and a pass over the parts writes the decisions.
"""

import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from selftrain.counters import mix
from selftrain.errors import UserError
from selftrain.files import atomic_path, write_json
from selftrain.predictions import selection
from selftrain.predictions.balance import ClassPlan, plan_classes
from selftrain.predictions.config import SelectConfig
from selftrain.predictions.corrections import check_corrections, decided_by_hand, file_digest, read_corrections
from selftrain.predictions.table import made_from_digest, prediction_classes, prediction_parts
from selftrain.progress import progress_bar

if TYPE_CHECKING:
    import duckdb
    import polars as pl

MEMORY_LIMIT = "2GB"
REPEATS = "duplicates.parquet"
SAMPLE = 1
"""Names the stream of random numbers that draws the share of the pool; the extra copies' has no name."""

# NaN compares as the largest number in SQL; it must never pass for a high confidence. Parquet's statistics
# leave NaN out, and DuckDB 2.0, believing them, drops `NOT isnan(…)` as always true: hence the setting in `select`.
CANDIDATES = """
CREATE VIEW candidates AS
SELECT key, label, confidence FROM predictions
WHERE confidence > {threshold}::FLOAT AND NOT isnan(confidence) AND in_sample(key)
    AND key NOT IN (SELECT key FROM decided)
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
    FROM (
        SELECT label, extra, draw_lot(key) AS lot
        FROM (
            SELECT key, label FROM candidates
            UNION ALL SELECT key, to_label AS label FROM decided WHERE to_label IS NOT NULL
        ) JOIN plan USING (label) WHERE plan.extra > 0
    )
) WHERE rank = extra
"""


def select(
    config: SelectConfig, seed: int, predictions: Path, corpus: Path, out: Path, corrections: Path | None = None
) -> dict[str, Any]:
    """Decide on every image of ``predictions`` (the unlabeled split's table) and write the selection to ``out``.

    ``corrections`` is what people said of single images. Returns the summary that is written to ``summary.json``.

    Raises UserError if no label of the teacher's passes the filter, and for corrections that do not fit the corpus.
    """
    import duckdb

    if not (corpus / REPEATS).is_file():
        raise UserError(f"{corpus / REPEATS}: no such file; `dvc repro ingest` makes it")
    classes = prediction_classes(predictions)
    parts = prediction_parts(predictions)
    decided = _decided_before(corpus, classes, config, corrections)
    by_hand = dict(decided.drop_nulls("to_label").group_by("to_label").len().iter_rows())
    with tempfile.TemporaryDirectory() as spill, duckdb.connect() as connection:
        connection.execute(f"SET memory_limit = '{MEMORY_LIMIT}'; SET temp_directory = '{spill}'")
        connection.execute("SET disabled_optimizers = 'statistics_propagation'")
        connection.read_parquet([str(part) for part in parts]).create_view("predictions")
        connection.register("decided", decided.to_arrow())
        _create_in_sample(connection, config.share, seed)
        connection.execute(CANDIDATES.format(threshold=config.threshold))
        counts = dict(connection.execute("SELECT label, count(*) FROM candidates GROUP BY label").fetchall())
        if not counts:
            raise UserError(_nothing_passed(connection, config.threshold, predictions))
        quota, plans = plan_classes(counts, by_hand, config.per_class, config.max_copies)
        plan = _cutoffs(connection, plans, seed)

    shutil.rmtree(out, ignore_errors=True)
    totals: dict[tuple[int, str], tuple[int, int]] = {}
    with progress_bar(f"select {out.name}", total=len(parts)) as advance:
        for part in parts:
            rows = _decide(part, decided, plan, config, seed)
            with atomic_path(out / part.name) as temporary:
                rows.write_parquet(temporary, compression="zstd")
            for label, decision, images, copies in _count(rows).iter_rows():
                before = totals.get((label, decision), (0, 0))
                totals[label, decision] = (before[0] + images, before[1] + copies)
            advance()
    summary = _summary(totals, classes, config, quota) | {
        "predictions": made_from_digest(predictions),
        "corrections": {"path": str(corrections), "digest": file_digest(corrections)} if corrections else None,
        "digest": selection.parts_digest(out),
    }
    assert {p.label: p.kept for p in plans} == {
        p.label: totals.get((p.label, selection.KEPT), (0, 0))[0] for p in plans
    }
    write_json(out / "summary.json", summary)
    return summary


def _decided_before(corpus: Path, classes: list[str], config: SelectConfig, corrections: Path | None) -> "pl.DataFrame":
    """``key, kind, to_label`` of the images that are decided on whatever the teacher says.

    Held-out images' copies are leaks whatever a person says of them; a person's word comes before "duplicate".
    """
    import polars as pl

    kinds = pl.read_parquet(corpus / REPEATS, columns=["key", "kind"], glob=False)
    kinds = kinds if config.repeats == "drop" else kinds.clear()
    kinds = kinds.with_columns(to_label=pl.lit(None, pl.Int32))
    if corrections is None:
        return kinds
    told = read_corrections(corrections)
    check_corrections(told, corrections, classes, corpus / "unlabeled")
    by_hand = decided_by_hand(told, classes)
    leaks = kinds.filter(pl.col("kind") == selection.LEAK)
    if vain := len(by_hand.join(leaks, on="key", how="semi")):
        print(f"{corrections}: {vain} corrected images are copies of held-out images, and stay out as leaks")
    by_hand = by_hand.join(leaks, on="key", how="anti")
    return pl.concat([kinds.join(by_hand, on="key", how="anti"), by_hand])


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


def _decide(
    part: Path, decided: "pl.DataFrame", plan: "pl.DataFrame", config: SelectConfig, seed: int
) -> "pl.DataFrame":
    """One part's decisions, rows in the part's order; ``decided`` is what ``_decided_before`` returns."""
    import polars as pl

    rows = pl.read_parquet(part, columns=["key", "label", "confidence"], glob=False)
    keys = rows["key"].to_numpy()
    confidence, last = pl.col("confidence"), pl.col("last_confidence")
    passes = (confidence > pl.lit(config.threshold, pl.Float32)) & confidence.is_not_nan()
    first = last.is_null() | (confidence > last) | ((confidence == last) & (pl.col("key") <= pl.col("last_key")))
    within_quota = (pl.col("kept") > 0) & first
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
    trained_on = pl.col("decision").is_in(selection.TRAINED_ON)
    copies = pl.when(trained_on).then(pl.col("copies") + extra.cast(pl.Int64)).otherwise(0)
    corrected = pl.col("to_label").is_not_null()
    return (
        rows.with_columns(
            lot=pl.Series(mix(seed, keys), dtype=pl.UInt64),
            sampled=pl.Series(in_sample(keys, config.share, seed), dtype=pl.Boolean),
        )
        .join(decided, on="key", how="left", maintain_order="left")
        .with_columns(
            label=pl.coalesce("to_label", "label"),
            confidence=pl.when(corrected).then(pl.lit(1.0, pl.Float32)).otherwise(confidence),
        )
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

    def trained_on(column: int, label: int | None = None) -> int:
        return sum(total(decision, column, label) for decision in selection.TRAINED_ON)

    return {
        "images": images,
        "coverage": trained_on(0) / images,
        "decisions": decisions,
        "per_class_quota": quota,
        "threshold": config.threshold,
        "unique_images": trained_on(0),
        "balanced_images": trained_on(1),
        "per_class": {
            name: {decision: total(decision, 0, label) for decision in selection.DECISIONS}
            | {"copies": trained_on(1, label)}
            for label, name in enumerate(classes)
        },
    }


def _nothing_passed(connection: "duckdb.DuckDBPyConnection", threshold: float, predictions: Path) -> str:
    usable = "NOT isnan(confidence) AND in_sample(key) AND key NOT IN (SELECT key FROM decided)"
    highest, highest_usable = (
        (connection.execute(f"SELECT max(confidence) FROM predictions WHERE {condition}").fetchone() or (None,))[0]
        for condition in ("NOT isnan(confidence)", usable)
    )
    if highest is None:
        return f"{predictions}: every confidence is NaN; the teacher did not learn, so train it anew"
    if highest_usable is None:
        return (
            f"{predictions}: leaks, duplicates, rejected images and `select.share` leave no image at all; look at "
            "data/corpus/duplicates.parquet and corrections.parquet, or use a larger share"
        )
    return (
        f"the round's select.threshold, {threshold:g}, filters out every image of {predictions}; the highest "
        f"confidence of those that may be used is {highest_usable:.3f}, so choose a lower threshold or a better teacher"
    )
