"""The selection of pseudo-labels on a frame in memory."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import polars as pl


def select(predictions: "pl.DataFrame", *, seed: int = 0, **parameters: Any) -> "pl.DataFrame":
    """Decide on each prediction as the stage ``select`` does: ``key, label, confidence, decision, copies,
    weight``.

    ``predictions`` has ``key`` (int64), ``label`` (a class's index) and ``confidence`` (0–1), and, for policies that
    read them, ``log_probs``: lists of C numbers, as ``Run.predictions`` gives them, or binaries of float16, as the
    files of a table that keeps all classes. ``parameters`` are those of the section ``select``: ``policy``,
    ``threshold``, ``per_class``, ``max_copies``, ``share``. Leaks, duplicates and corrections are no part of it: they
    belong to a corpus. Raises UserError for parameters that there are not, and for rows that are no predictions.
    """
    from selftrain.params.select import SelectConfig
    from selftrain.plumbing.errors import UserError
    from selftrain.plumbing.sections import load_seed, parse_section
    from selftrain.selection.decide import select_frame

    load_seed({"seed": seed}, Path("st.select"))
    config = parse_section(parameters, SelectConfig, "select")
    predictions = _checked(predictions)
    if "log_probs" in predictions.columns:
        predictions = predictions.with_columns(_as_arrays(predictions))
        width = predictions["log_probs"].dtype.shape[0]  # type: ignore[attr-defined]
        if len(wrong := (predictions["label"] >= width).arg_true()):
            raise UserError(f"select: row {wrong[0]}: its label is none of the {width} classes that log_probs have")
    return select_frame(predictions, config, seed)


def _checked(predictions: "pl.DataFrame") -> "pl.DataFrame":
    """The frame with its columns' types. Raises UserError, naming the first row, for what is no prediction."""
    import polars as pl

    from selftrain.plumbing.errors import UserError, one_line
    from selftrain.tables.predictions import no_prediction

    for name in ("key", "label", "confidence"):
        if name not in predictions.columns:
            raise UserError(f"select: the frame has no column '{name}'")
    key, label = pl.col("key"), pl.col("label")
    try:
        frame = predictions.with_columns(
            key.cast(pl.Int64), label.cast(pl.Int32), pl.col("confidence").cast(pl.Float32)
        )
    except pl.exceptions.PolarsError as error:
        raise UserError(f"select: keys and labels are whole numbers, confidences numbers ({one_line(error)})") from None
    wrong = {
        **no_prediction(),
        "label is no class's index": label < 0,
        "key is that of another row too": key.is_duplicated(),
    }
    for what, rows in wrong.items():
        if len(found := frame.select(rows.arg_true()).to_series()):
            raise UserError(f"select: row {found[0]}: its {what}")
    return frame


def _as_arrays(predictions: "pl.DataFrame") -> "pl.Series":
    import numpy as np
    import polars as pl

    from selftrain.plumbing.errors import UserError

    column = predictions["log_probs"]
    if column.dtype == pl.Binary:
        if "classes" in predictions.columns:
            raise UserError("select: the table keeps some classes (`predict.top_k`); take `Run.predictions` of it")
        lengths = column.bin.size() / 2
    elif isinstance(column.dtype, pl.List):
        lengths = column.list.len()
    elif not isinstance(column.dtype, pl.Array):
        raise UserError(f"select: log_probs: lists or arrays of numbers, or a table's bytes, not {column.dtype}")
    else:
        lengths = column.is_null().replace_strict({True: None, False: 1}, return_dtype=pl.Int64)
    width = int(lengths.max() or 0)  # type: ignore[arg-type]
    if len(wrong := (lengths.is_null() | lengths.ne_missing(width) | (lengths % 1 > 0)).arg_true()):
        raise UserError(f"select: log_probs: row {wrong[0]} has not as many numbers as others; each class needs one")
    if column.dtype == pl.Binary:
        return pl.Series("log_probs", np.frombuffer(b"".join(column), np.float16).reshape(len(column), width))
    return column.list.to_array(width) if isinstance(column.dtype, pl.List) else column
