"""The images that are likeliest to be of each class, whatever else they are likely to be.

Pham et al. 2021, "Meta Pseudo Labels" (arXiv 2003.10580, Section 3.3 and Appendix E): for each class the K images with
the highest probability of that class. An image may be among those of several classes; it then has a copy for each. K is
``select.per_class``, a number; balancing has nothing left to do.
"""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from selftrain.params.select import SelectConfig
from selftrain.plumbing.errors import UserError
from selftrain.selection.policy import Policy
from selftrain.selection.sources import Source, unpacked
from selftrain.tables.selection import LOW_CONFIDENCE

if TYPE_CHECKING:
    import polars as pl


class ClassProbability(Policy):
    """``low_confidence`` where an image is among the K likeliest of no class."""

    columns = ("key", "label", "confidence", "log_probs")
    counts_copies = True

    def __init__(self, config: SelectConfig, source: Source) -> None:
        super().__init__(config, source)
        if not isinstance(config.per_class, int):
            raise UserError(f"select.per_class: the policy class_probability needs a number, found {config.per_class}")
        best: NDArray[np.float64] | None = None  # (at most K, C)
        images = 0
        for part in source.parts(["log_probs"]):
            if len(part):
                found = unpacked(part)
                best = found if best is None else np.concatenate([best, found])
                best = -np.sort(-best, axis=0)[: config.per_class]
                images += len(found)
        keeping = source.images_that_keep()  # (C,)
        if keeping is not None and keeping.min() < min(config.per_class, images):
            raise UserError(
                f"select.per_class: {config.per_class} images of each class are wanted, and only {keeping.min()} have "
                f"a probability of the class number {keeping.argmin()} in the table; set `predict.top_k` higher or to "
                "null, or `per_class` lower"
            )
        self.cutoffs = np.zeros(1) if best is None else best[-1]  # (C,)

    def decide(self, rows: "pl.DataFrame") -> "pl.Series":
        """See the class."""
        import polars as pl

        chosen = self.copies(rows)
        return pl.select(pl.when(chosen == 0).then(pl.lit(LOW_CONFIDENCE))).to_series()

    def copies(self, rows: "pl.DataFrame") -> "pl.Series":
        """How many classes each image is among the likeliest of."""
        import polars as pl

        return pl.Series((unpacked(rows) >= self.cutoffs).sum(axis=1), dtype=pl.Int64)

    @property
    def threshold(self) -> float:
        """The lowest probability of a class that it lets through."""
        return float(np.exp(self.cutoffs.min()))

    def summary(self, classes: list[str]) -> dict[str, object]:
        """``cutoffs`` of probability by class."""
        return {"cutoffs": dict(zip(classes, np.exp(self.cutoffs).tolist(), strict=True))}
