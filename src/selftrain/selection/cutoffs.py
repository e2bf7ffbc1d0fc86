"""A cut-off of confidence a class: what policies with one have in common."""

from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import NDArray

from selftrain.selection.policy import Policy
from selftrain.tables.selection import LOW_CONFIDENCE

if TYPE_CHECKING:
    import polars as pl


class CutoffPolicy(Policy):
    """``low_confidence`` where the confidence is below the cut-off of the image's class, or is NaN."""

    parameters: ClassVar[tuple[str, ...]] = ()
    cutoffs: NDArray[np.float64]  # (C,)
    """A subclass sets them."""

    def decide(self, rows: "pl.DataFrame") -> "pl.Series":
        """See the class."""
        import polars as pl

        needed = pl.Series(self.cutoffs[rows["label"].to_numpy()], dtype=pl.Float64)
        confidence = rows["confidence"].cast(pl.Float64)
        low = (confidence < needed) | confidence.is_nan()
        return pl.select(pl.when(low).then(pl.lit(LOW_CONFIDENCE))).to_series()

    @property
    def threshold(self) -> float:
        """See ``Policy``."""
        return min(float(self.cutoffs.min()), 1.0)
