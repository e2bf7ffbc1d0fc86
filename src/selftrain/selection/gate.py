"""A gate against strangers: images of no class, of which later rounds grow sure.

The first teacher is the only one that no pseudo-label has taught. It is less sure of strangers than of images of the
classes. What it is less sure of than of the share ``select.gate`` of the validation images stays out of every round.
"""

from typing import TYPE_CHECKING

import numpy as np

from selftrain.plumbing.errors import UserError
from selftrain.selection.policy import Source

if TYPE_CHECKING:
    import polars as pl


class Gate:
    """The first teacher's confidence that an image needs to come in."""

    def __init__(self, share: float, source: Source) -> None:
        self.source = source
        self.cutoff = float(np.quantile(source.first_validation_confidences(), share))

    def strangers(self, rows: "pl.DataFrame") -> "pl.Series":
        """Whether each image is left out; rows are a part of the teacher's table."""
        import polars as pl

        if not len(rows):
            return pl.Series([], dtype=pl.Boolean)
        first = self.source.first(int(rows["key"][0]))
        known = rows.select("key").join(first, on="key", how="left", maintain_order="left")["confidence"]
        if known.null_count():
            raise UserError("select.gate: the first teacher's table lacks images of the pool; run `dvc repro`")
        return (known.cast(pl.Float64) < self.cutoff) | known.is_nan()
