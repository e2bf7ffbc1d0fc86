"""Noisy Student's filter (Xie et al. 2020, arXiv 1911.04252, Section 3.1): confidence above ``select.threshold``."""

from typing import TYPE_CHECKING, ClassVar

from selftrain.selection.policy import Policy
from selftrain.tables.selection import LOW_CONFIDENCE

if TYPE_CHECKING:
    import polars as pl


class Threshold(Policy):
    """``low_confidence`` where the confidence is not above the threshold, or is NaN."""

    parameters: ClassVar[tuple[str, ...]] = ("threshold",)

    def decide(self, rows: "pl.DataFrame") -> "pl.Series":
        """See the class."""
        import polars as pl

        confidence = pl.col("confidence")
        passes = (confidence > pl.lit(self.config.threshold, pl.Float32)) & confidence.is_not_nan()
        return rows.select(reason=pl.when(~passes).then(pl.lit(LOW_CONFIDENCE))).to_series()
