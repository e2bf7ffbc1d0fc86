"""A selection's two passes over a table, as units of work: some parts at a time, each by itself."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from selftrain.selection.decide import Decisions
from selftrain.selection.sources import Tables
from selftrain.tables.parquet import write_frame

if TYPE_CHECKING:
    import polars as pl

TOGETHER = 2**17
"""Rows of a unit, about."""

Counts = dict[tuple[int, str], tuple[int, int]]
"""(images, copies) by label and decision."""


@dataclass(frozen=True)
class FirstPass:
    """Writes the candidates of parts, each into a file of its own in ``folder``."""

    source: Tables
    decisions: Decisions
    folder: Path

    def __call__(self, parts: list[Path]) -> None:
        """Do it for some parts."""
        for part in parts:
            rows = prepared(part, self.source, self.decisions)
            self.decisions.candidates(rows).write_parquet(self.folder / part.name, compression="lz4")


@dataclass(frozen=True)
class SecondPass:
    """Writes the decisions on parts' images into ``out``."""

    source: Tables
    decisions: Decisions
    plan: "pl.DataFrame"
    out: Path

    def __call__(self, parts: list[Path]) -> Counts:
        """Do it for some parts; return what became of their images."""
        import polars as pl

        decided = []
        for part in parts:
            rows = self.decisions.decide(prepared(part, self.source, self.decisions), self.plan)
            write_frame(rows, self.out / part.name)
            decided.append(rows.select("label", "decision", "copies"))
        groups = pl.concat(decided).group_by("label", "decision").agg(pl.len(), pl.col("copies").sum())
        return {(label, decision): (images, copies) for label, decision, images, copies in groups.iter_rows()}


def prepared(part: Path, source: Tables, decisions: Decisions) -> "pl.DataFrame":
    """The columns of a part that decisions are made from."""
    return decisions.prepared(source.read(part, decisions.columns))


def added(counts: Counts, more: Counts) -> Counts:
    """The sums of two."""
    both = dict(counts)
    for key, (images, copies) in more.items():
        before = both.get(key, (0, 0))
        both[key] = (before[0] + images, before[1] + copies)
    return both
