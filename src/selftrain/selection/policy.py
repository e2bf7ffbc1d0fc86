"""The contract of selection policies."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, ClassVar

from selftrain.params.select import SelectConfig
from selftrain.plumbing.by_name import find_class
from selftrain.selection.sources import Source
from selftrain.tables.selection import LOW_CONFIDENCE

if TYPE_CHECKING:
    import polars as pl


class Policy:
    """Which pseudo-labels are good enough to be trained on. Balancing comes afterwards, the same for every policy.

    One file of ``policies/`` holds one subclass, found by the file's name in ``select.policy``.
    """

    columns: ClassVar[tuple[str, ...]] = ("key", "label", "confidence")
    """What it reads of a prediction table; ``log_probs`` are arrays of C numbers."""
    reasons: ClassVar[tuple[str, ...]] = (LOW_CONFIDENCE,)
    """The decisions that it may give."""
    parameters: ClassVar[tuple[str, ...]] = ("threshold", "precision", "neighbours")
    """What it reads of these; `selftrain check` says so where a round that has this policy sets another."""
    uses_embeddings: ClassVar[bool] = False
    """Whether it asks its source for embeddings of the pool."""
    counts_copies: ClassVar[bool] = False
    """Whether it says itself how often the epoch holds each image; otherwise classes are balanced."""

    def __init__(self, config: SelectConfig, source: Source) -> None:
        self.config = config

    def prepare(self, usable: "Iterator[pl.DataFrame]") -> None:
        """See the images that may be kept, ``columns`` part by part, before any is decided on."""

    def decide(self, rows: "pl.DataFrame") -> "pl.Series":
        """Rows of the table → a column of text: the reason why an image is left out, null where it is a candidate."""
        raise NotImplementedError

    def copies(self, rows: "pl.DataFrame") -> "pl.Series":
        """How often the epoch holds each row's image, where ``counts_copies``."""
        raise NotImplementedError

    @property
    def threshold(self) -> float:
        """The lowest confidence that it lets through; with a cut-off a class, the lowest of them."""
        return self.config.threshold

    def summary(self, classes: list[str]) -> dict[str, object]:
        """What it found, for the selection's summary."""
        return {}


def find_policy(name: str, where: str = "select.policy") -> type[Policy]:
    """A policy by the name of its file. Raises UserError naming ``where`` it is written and those there are."""
    return find_class("selection.policies", name, Policy, where)
