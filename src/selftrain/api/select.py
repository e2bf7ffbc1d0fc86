"""The selection of pseudo-labels on a frame in memory."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import polars as pl


def select(predictions: "pl.DataFrame", *, seed: int = 0, **parameters: Any) -> "pl.DataFrame":
    """Decide on each prediction as the stage ``select`` does: ``key, label, confidence, decision, copies``.

    ``predictions`` has ``key`` (int64), ``label`` (a class's index) and ``confidence`` (0–1), and, for policies that
    read them, ``log_probs``. ``parameters`` are those of the section ``select``: ``policy``, ``threshold``,
    ``per_class``, ``max_copies``, ``share``. Leaks, duplicates and corrections are no part of it: they belong to a
    corpus. Raises UserError for parameters that there are not.
    """
    import polars as pl

    from selftrain.params.select import SelectConfig
    from selftrain.plumbing.sections import parse_section
    from selftrain.selection.decide import select_frame

    config = parse_section(parameters, SelectConfig, "select")
    columns = predictions.with_columns(
        pl.col("key").cast(pl.Int64), pl.col("label").cast(pl.Int32), pl.col("confidence").cast(pl.Float32)
    )
    return select_frame(columns, config, seed)
