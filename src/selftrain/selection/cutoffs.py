"""A cut-off of confidence a class: what policies with one have in common."""

from typing import TYPE_CHECKING

from numpy.typing import NDArray

from selftrain.tables.selection import LOW_CONFIDENCE

if TYPE_CHECKING:
    import numpy as np
    import polars as pl


def below_cutoff(rows: "pl.DataFrame", cutoffs: "NDArray[np.float64]") -> "pl.Series":
    """``low_confidence`` where ``confidence`` is below the cut-off (C,) of the row's ``label``, or is NaN."""
    import polars as pl

    needed = pl.Series(cutoffs[rows["label"].to_numpy()], dtype=pl.Float64)
    confidence = rows["confidence"].cast(pl.Float64)
    low = (confidence < needed) | confidence.is_nan()
    return pl.select(pl.when(low).then(pl.lit(LOW_CONFIDENCE))).to_series()
