"""The decisions of a selection: a policy filters, classes are balanced, every image gets its decision and copies.

Noisy Student (Xie et al. 2020, arXiv 1911.04252), Section 3.1: of the images that pass, every class keeps its K most
confident; a class with fewer repeats some at random until it has K. Images that a person corrected come first in
their class, before every image that the teacher labeled.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from selftrain.counters import Stream, UInt64Array, mix
from selftrain.params.select import SelectConfig
from selftrain.selection.balance import ClassPlan, plan_classes, tail_shares
from selftrain.selection.policy import Policy, find_policy
from selftrain.selection.prior import COLUMNS, align
from selftrain.selection.sources import CHECKED, Frame, Source
from selftrain.tables import selection
from selftrain.tables.by_key import rows_among

if TYPE_CHECKING:
    import duckdb
    import polars as pl

LAST_KEPT = """
SELECT label, confidence, key FROM (
    SELECT *, row_number() OVER (PARTITION BY label ORDER BY confidence DESC, key) AS rank
    FROM candidates JOIN plan USING (label) WHERE plan.candidates > plan.kept
) WHERE rank = kept
"""

LAST_WITH_EXTRA_COPY = """
SELECT label, uniform FROM (
    SELECT label, extra, uniform, row_number() OVER (PARTITION BY label ORDER BY uniform) AS rank
    FROM (
        SELECT label, extra, draw_uniform(key) AS uniform
        FROM (
            SELECT key, label FROM (
                SELECT *, row_number() OVER (PARTITION BY label ORDER BY confidence DESC, key) AS place
                FROM candidates JOIN plan USING (label) WHERE plan.extra > 0
            ) WHERE place <= kept
            UNION ALL SELECT key, to_label AS label FROM decided WHERE to_label IS NOT NULL
        ) JOIN plan USING (label) WHERE plan.extra > 0
    )
) WHERE rank = extra
"""


class Decisions:
    """How one selection decides; rows are those of a prediction table, ``policy.columns`` of them."""

    def __init__(self, config: SelectConfig, seed: int, decided: "pl.DataFrame", source: Source) -> None:
        """``decided`` (``key, kind, to_label``) are images that are decided on whatever the teacher says."""
        self.config, self.seed, self.decided, self.source = config, seed, decided.sort("key"), source
        self.aligned = align(config, source) if config.prior is not None else None
        self.policy: Policy = find_policy(config.policy)(config, self.aligned or source)
        self.gate = source.gate(config.gate) if config.gate is not None else None
        aligning = COLUMNS if self.aligned is not None else ()
        self.columns: list[str] = list(dict.fromkeys([*self.policy.columns, *aligning]))
        self.policy.prepare(self._usable_parts())
        self.kinds = [*selection.DECISIONS, *(name for name in self.policy.reasons if name not in selection.DECISIONS)]

    def prepared(self, rows: "pl.DataFrame") -> "pl.DataFrame":
        """A table's ``columns`` as everything here takes them: aligned, if that is asked for."""
        return rows if self.aligned is None else self.aligned.rows(rows)

    def candidates(self, rows: "pl.DataFrame") -> "pl.DataFrame":
        """``key, label, confidence`` of the rows that pass the policy and are not decided on yet."""
        passes = self.policy.decide(rows).is_null() & ~self.strangers(rows)
        return self.usable(rows.filter(passes)).select("key", "label", "confidence")

    def _usable_parts(self) -> "Iterator[pl.DataFrame]":
        for part in (self.aligned or self.source).parts(list(dict.fromkeys([*CHECKED, *self.policy.columns]))):
            yield self.usable(part.filter(~self.strangers(part)))

    def strangers(self, rows: "pl.DataFrame") -> "pl.Series":
        """Whether the gate leaves each image out."""
        import polars as pl

        return self.gate.strangers(rows) if self.gate is not None else pl.repeat(False, len(rows), eager=True)

    def usable(self, rows: "pl.DataFrame") -> "pl.DataFrame":
        """The rows that are in the sample and not decided on yet."""
        import polars as pl

        sampled = pl.Series(in_sample(rows["key"].to_numpy(), self.config.share, self.seed), dtype=pl.Boolean)
        return rows.filter(sampled).join(self.decided_among(rows), on="key", how="anti")

    def decided_among(self, rows: "pl.DataFrame") -> "pl.DataFrame":
        """``decided`` between the rows' first and last key."""
        return rows_among(self.decided, rows["key"])

    def plan(
        self, connection: "duckdb.DuckDBPyConnection"
    ) -> "tuple[int | None, list[ClassPlan], pl.DataFrame] | None":
        """The quota, each class's plan, and the same as a frame with cut-offs; None if there are no candidates.

        ``connection`` has the candidates as its view of that name; what does not fit into memory is spilled.
        """
        counts = dict(connection.execute("SELECT label, count(*) FROM candidates GROUP BY label").fetchall())
        if not counts:
            return None
        corrected = dict(self.decided.drop_nulls("to_label").group_by("to_label").len().iter_rows())
        config, shares = self.config, None
        if config.tail_exponent:
            shares = tail_shares(self.source.labeled_counts(), config.tail_exponent)
        # A policy that counts copies has chosen how many images each class has.
        per_class = "all" if self.policy.counts_copies else config.per_class
        quota, plans = plan_classes(counts, corrected, per_class, config.max_copies, shares)
        return quota, plans, self._cutoffs(connection, plans)

    def decide(self, rows: "pl.DataFrame", plan: "pl.DataFrame") -> "pl.DataFrame":
        """``key, label, confidence, decision, copies, weight`` of rows, in their order."""
        import polars as pl

        keys = rows["key"].to_numpy()
        confidence, last = pl.col("confidence"), pl.col("last_confidence")
        first = last.is_null() | (confidence > last) | ((confidence == last) & (pl.col("key") <= pl.col("last_key")))
        within_quota = (pl.col("kept") > 0) & first
        decision = (
            pl.when(pl.col("kind").is_not_null())
            .then(pl.col("kind"))
            .when(~pl.col("sampled"))
            .then(pl.lit(selection.NOT_SAMPLED))
            .when(pl.col("stranger"))
            .then(pl.lit(selection.OUT_OF_DOMAIN))
            .when(pl.col("reason").is_not_null())
            .then(pl.col("reason"))
            .when(~within_quota)
            .then(pl.lit(selection.OVER_QUOTA))
            .otherwise(pl.lit(selection.KEPT))
        )
        extra = pl.col("last_uniform").is_not_null() & (pl.col("uniform") <= pl.col("last_uniform"))
        trained_on = pl.col("decision").is_in(selection.TRAINED_ON)
        copies = pl.when(trained_on).then(pl.col("copies") + extra.cast(pl.Int64)).otherwise(0)
        if self.policy.counts_copies:
            counted = pl.when(pl.col("decision") == selection.KEPT).then(pl.col("counted")).otherwise(1)
            copies = pl.when(trained_on).then(counted).otherwise(0)
        weight = pl.col("confidence") if self.config.weight == "confidence" else pl.lit(1.0, pl.Float32)
        corrected = pl.col("to_label").is_not_null()
        return (
            rows.select("key", "label", "confidence")
            .with_columns(
                uniform=pl.Series(_uniform(keys, self.seed), dtype=pl.UInt64),
                sampled=pl.Series(in_sample(keys, self.config.share, self.seed), dtype=pl.Boolean),
                reason=self.policy.decide(rows),
                stranger=self.strangers(rows),
                counted=self.policy.copies(rows) if self.policy.counts_copies else None,
            )
            .join(self.decided_among(rows), on="key", how="left", maintain_order="left")
            .with_columns(
                label=pl.coalesce("to_label", "label"),
                confidence=pl.when(corrected).then(pl.lit(1.0, pl.Float32)).otherwise(confidence),
            )
            .join(plan, on="label", how="left", maintain_order="left")
            .with_columns(decision=decision)
            .with_columns(copies=copies.cast(pl.Int32), weight=weight)
            .select("key", "label", "confidence", "decision", "copies", "weight")
        )

    def _cutoffs(self, connection: "duckdb.DuckDBPyConnection", plans: list[ClassPlan]) -> "pl.DataFrame":
        """One row a class: its plan, where its quota cuts, and where its extra copies end."""
        import polars as pl
        import pyarrow as pa

        def draw_uniform(keys: pa.Array) -> pa.Array:
            return pa.array(_uniform(keys.to_numpy(), self.seed))

        plan = pl.DataFrame(plans, schema_overrides={"label": pl.Int32})
        connection.register("plan", plan.to_arrow())
        connection.register("decided", self.decided.to_arrow())
        signature: Any = (["BIGINT"], "UBIGINT")
        connection.create_function("draw_uniform", draw_uniform, *signature, type="arrow")  # type: ignore[call-overload]
        last_kept = pl.DataFrame(connection.sql(LAST_KEPT).to_arrow_table())
        last_extra = pl.DataFrame(connection.sql(LAST_WITH_EXTRA_COPY).to_arrow_table())
        connection.remove_function("draw_uniform")
        return plan.join(
            last_kept.rename({"confidence": "last_confidence", "key": "last_key"}), on="label", how="left"
        ).join(last_extra.rename({"uniform": "last_uniform"}), on="label", how="left")


def _uniform(keys: NDArray[np.int64], seed: int) -> UInt64Array:
    """What says which images of a class get an extra copy: the smallest."""
    return mix(seed, Stream.SELECTION, keys)


def in_sample(keys: NDArray[np.int64], share: float, seed: int) -> NDArray[np.bool_]:
    """Which images a random share of the pool holds, (N,); a larger share holds those of a smaller one."""
    if share == 1:
        return np.ones(len(keys), dtype=bool)
    sampled: NDArray[np.bool_] = mix(seed, Stream.SELECTION_SHARE, keys) < np.uint64(share * 2**64)
    return sampled


def select_frame(rows: "pl.DataFrame", config: SelectConfig, seed: int = 0) -> "pl.DataFrame":
    """The decisions on a table in memory, ``key, label, confidence, decision, copies, weight``, in its order.

    Without candidates every image has the reason why it is none.
    """
    import duckdb
    import polars as pl

    decided = no_decisions()
    decisions = Decisions(config, seed, decided, Frame(rows))
    rows = decisions.prepared(rows)
    with duckdb.connect() as connection:
        connection.register("candidates", decisions.candidates(rows).to_arrow())
        planned = decisions.plan(connection)
    plan = planned[2] if planned else _no_plan()
    return decisions.decide(rows, plan).with_columns(pl.col("copies").fill_null(0))


def no_decisions() -> "pl.DataFrame":
    """``key, kind, to_label`` without a row."""
    import polars as pl

    return pl.DataFrame(schema={"key": pl.Int64, "kind": pl.String, "to_label": pl.Int32})


def _no_plan() -> "pl.DataFrame":
    import polars as pl

    whole = dict.fromkeys(("candidates", "kept", "copies", "extra", "last_key"), pl.Int64)
    others = {"last_confidence": pl.Float32, "last_uniform": pl.UInt64}
    return pl.DataFrame(schema={"label": pl.Int32, **whole, **others})
