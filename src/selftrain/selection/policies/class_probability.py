"""The images that are likeliest to be of each class, whatever else they are likely to be.

Pham et al. 2021, "Meta Pseudo Labels" (arXiv 2003.10580, Section 3.3 and Appendix E): for each class the K images with
the highest probability of that class. An image may be among those of several classes; it then has a copy for each. K is
``select.per_class``, a number; balancing has nothing left to do.
"""

from collections.abc import Iterator
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

    parameters = ()
    columns = ("key", "label", "confidence", "log_probs")
    counts_copies = True

    def __init__(self, config: SelectConfig, source: Source) -> None:
        super().__init__(config, source)
        if not isinstance(config.per_class, int):
            raise UserError(f"select.per_class: the policy class_probability needs a number, found {config.per_class}")
        self.source = source
        self.cutoffs, self.last_keys = np.zeros(1), np.zeros(1, np.int64)
        """(C,) The probability of the last image of each class, as a logarithm, and its key."""

    def prepare(self, usable: "Iterator[pl.DataFrame]") -> None:
        """Find the K likeliest of each class; of equal ones those that come first."""
        assert isinstance(self.config.per_class, int)
        best: NDArray[np.float64] | None = None  # (at most K, C)
        keys = np.empty((0, 0), np.int64)  # the same
        images, keeping = 0, np.zeros(0, np.int64)  # (C,)
        for part in usable:
            if not len(part):
                continue
            found = unpacked(part)
            keeping = keeping if len(keeping) else np.zeros(found.shape[1], np.int64)
            kept = self.source.kept_classes(part)
            keeping += len(part) if kept is None else np.bincount(kept.ravel(), minlength=len(keeping))
            of_part = np.repeat(part["key"].to_numpy()[:, None], found.shape[1], axis=1)
            if best is not None:
                found, of_part = np.concatenate([best, found]), np.concatenate([keys, of_part])
            best, keys = found, of_part
            order = np.lexsort((keys, -best), axis=0)[: self.config.per_class]
            best, keys = np.take_along_axis(best, order, axis=0), np.take_along_axis(keys, order, axis=0)
            images += len(part)
        if best is None:
            return
        if keeping.min() < min(self.config.per_class, images):
            raise UserError(
                f"select.per_class: {self.config.per_class} images of each class are wanted, and only {keeping.min()} "
                f"that may be chosen have a probability of the class number {keeping.argmin()} in the table; set "
                "`predict.top_k` higher or to null, or `per_class` lower"
            )
        self.cutoffs, self.last_keys = best[-1], keys[-1]

    def decide(self, rows: "pl.DataFrame") -> "pl.Series":
        """See the class."""
        import polars as pl

        chosen = self.copies(rows)
        return pl.select(pl.when(chosen == 0).then(pl.lit(LOW_CONFIDENCE))).to_series()

    def copies(self, rows: "pl.DataFrame") -> "pl.Series":
        """How many classes each image is among the likeliest of."""
        import polars as pl

        probs, keys = unpacked(rows), rows["key"].to_numpy()[:, None]
        among = (probs > self.cutoffs) | ((probs == self.cutoffs) & (keys <= self.last_keys))
        return pl.Series(among.sum(axis=1), dtype=pl.Int64)

    @property
    def threshold(self) -> float:
        """The lowest probability of a class that it lets through."""
        return float(np.exp(self.cutoffs.min()))

    def summary(self, classes: list[str]) -> dict[str, object]:
        """``cutoffs`` of probability by class."""
        return {"cutoffs": dict(zip(classes, np.exp(self.cutoffs).tolist(), strict=True))}
