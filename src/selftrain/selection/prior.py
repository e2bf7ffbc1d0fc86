"""Distribution alignment: predictions whose mean over the pool is a given share of each class.

Berthelot et al. 2020, "ReMixMatch" (arXiv 1911.09785, Section 3.1): p̃ ∝ p · target / mean(p). A teacher of few labels
prefers some classes; this takes the preference out before a policy looks. Wei et al. 2021, "CReST" (arXiv 2102.09559,
Section 3.3), take the labeled images' shares to a power below 1 as the target, which favours the tail.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from selftrain.calibration import shift_log_probs
from selftrain.params.select import SelectConfig
from selftrain.selection.gate import Gate
from selftrain.selection.sources import CHECKED, Source, pool_sums, unpacked
from selftrain.tables.held_out import HeldOut

if TYPE_CHECKING:
    import polars as pl

COLUMNS = (*CHECKED, "log_probs")


@dataclass(frozen=True)
class Aligned:
    """A source of which every prediction is aligned."""

    source: Source
    shift: NDArray[np.float64]  # (C,)
    """Added to the log-probabilities, which are then normalised."""

    def rows(self, rows: "pl.DataFrame") -> "pl.DataFrame":
        """A table's rows, ``COLUMNS`` and others, with the aligned label, confidence and log-probabilities."""
        import polars as pl

        if not len(rows):
            return rows
        shifted = shift_log_probs(unpacked(rows), self.shift)
        known = rows["confidence"].is_not_nan()
        columns: list[tuple[str, pl.Series]] = [
            ("label", pl.Series(shifted.argmax(axis=1), dtype=pl.Int32)),
            ("confidence", pl.Series(np.exp(shifted.max(axis=1)), dtype=pl.Float32)),
            ("log_probs", pl.Series(shifted.astype(np.float16), dtype=rows["log_probs"].dtype)),
        ]
        return rows.with_columns(pl.when(known).then(new).otherwise(pl.col(name)).alias(name) for name, new in columns)

    def parts(self, columns: list[str]) -> "Iterator[pl.DataFrame]":
        """See ``Source``."""
        for part in self.source.parts(list(dict.fromkeys([*COLUMNS, *columns]))):
            yield self.rows(part).select(columns)

    def kept_classes(self, rows: "pl.DataFrame") -> NDArray[np.unsignedinteger] | None:
        """See ``Source``."""
        return self.source.kept_classes(rows)

    def validation(self) -> HeldOut:
        """See ``Source``."""
        found = self.source.validation()
        return found.with_log_probs(shift_log_probs(found.log_probs, self.shift))

    def earlier(self, part_of: int) -> "list[pl.DataFrame]":
        """See ``Source``."""
        return self.source.earlier(part_of)

    def gate(self, share: float) -> Gate:
        """See ``Source``."""
        return self.source.gate(share)

    def labeled_counts(self) -> NDArray[np.int64]:
        """See ``Source``."""
        return self.source.labeled_counts()

    def embeddings(self) -> Path:
        """See ``Source``."""
        return self.source.embeddings()


def align(config: SelectConfig, source: Source) -> Aligned:
    """The source aligned to ``config.prior``, by the mean of its own predictions."""
    images, _, probs = pool_sums(source)
    if not images:
        return Aligned(source, np.zeros(1))
    target = np.ones(len(probs))
    if config.prior == "labeled":
        target = source.labeled_counts().astype(np.float64) ** config.prior_exponent
    return Aligned(source, np.log(target / target.sum()) - np.log(np.maximum(probs / images, 1e-6)))
