"""Labels on which the rounds agree: above ``select.threshold``, and the same from the teacher's own teachers.

A round's teacher was trained on the labels of its teacher. An image on which the two disagree is one that the pool
talked a network out of, or into; ``disagreement`` says so. In the first round there is nobody to disagree with.
"""

from typing import TYPE_CHECKING

from selftrain.params.select import SelectConfig
from selftrain.plumbing.errors import UserError
from selftrain.selection.policies.threshold import Threshold
from selftrain.selection.sources import Source
from selftrain.tables.selection import LOW_CONFIDENCE

if TYPE_CHECKING:
    import polars as pl

DISAGREEMENT = "disagreement"


class Agreement(Threshold):
    """``low_confidence`` as ``threshold``; ``disagreement`` where an earlier teacher gives another label."""

    reasons = (LOW_CONFIDENCE, DISAGREEMENT)

    def __init__(self, config: SelectConfig, source: Source) -> None:
        super().__init__(config, source)
        if config.prior is not None:
            raise UserError("select.prior: the policy agreement compares labels as they were predicted; set it to null")
        self.source = source

    def decide(self, rows: "pl.DataFrame") -> "pl.Series":
        """See the class."""
        import polars as pl

        disagrees = pl.Series([False] * len(rows), dtype=pl.Boolean)
        for earlier in self.source.earlier(int(rows["key"][0])) if len(rows) else []:
            if not rows["key"].equals(earlier["key"]):
                raise UserError("select.policy: a table of an earlier round has other images; run `dvc repro`")
            disagrees |= rows["label"] != earlier["label"]
        low = super().decide(rows)
        return pl.select(pl.when(low.is_not_null()).then(low).when(disagrees).then(pl.lit(DISAGREEMENT))).to_series()
