"""Thresholds that the teacher's own state sets: FreeMatch's (Wang et al. 2023, arXiv 2205.07246, Section 4.1).

The global threshold is the mean confidence over the pool. A class's is the global one times its mean probability over
the pool, relative to the class with the highest: a class that the teacher hardly knows yet is believed from a lower
confidence on. The paper takes moving averages over batches; here the whole table is there.
"""

from selftrain.params.select import SelectConfig
from selftrain.selection.cutoffs import CutoffPolicy
from selftrain.selection.sources import Source, pool_sums


class Adaptive(CutoffPolicy):
    """``low_confidence`` below the class's cut-off."""

    def __init__(self, config: SelectConfig, source: Source) -> None:
        super().__init__(config, source)
        images, confidence, probs = pool_sums(source)
        self.cutoffs = confidence / max(images, 1) * probs / max(float(probs.max()), 1e-12)

    def summary(self, classes: list[str]) -> dict[str, object]:
        """``cutoffs`` by class."""
        return {"cutoffs": dict(zip(classes, self.cutoffs.tolist(), strict=True))}
