"""The saved views: what each shows, which images it needs, and how FiftyOne filters for it.

Each view has two filters: a polars filter over the pool (``tables.iter_pool``: which images to extract, and how many
there are) and a FiftyOne filter over the samples' fields (what the App shows); a test holds the two together.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import combinations, takewhile
from typing import TYPE_CHECKING, Any

from selftrain.inspection.rounds import BrowsedRun
from selftrain.params.runs import chain_of
from selftrain.tables.selection import (
    CORRECTED,
    KEPT,
    LOW_CONFIDENCE,
    NOT_SAMPLED,
    OVER_QUOTA,
    REJECTED,
    TRAINED_ON,
)
from selftrain.tables.truth import NO_CLASS, name_of_no_class

if TYPE_CHECKING:
    import polars as pl

NO_CLASS_NAME = name_of_no_class([])
NOT_FILTERED_OUT = (*TRAINED_ON, OVER_QUOTA, NOT_SAMPLED)
"""Every other decision is a filter's, also those that only one policy gives."""
CONFIDENT = 0.9


@dataclass(frozen=True)
class SavedView:
    """One saved view."""

    name: str
    description: str
    rows: Callable[[], "pl.Expr"]
    """Over ``tables.iter_pool``."""
    samples: Callable[[Any], Any]
    """Over FiftyOne's ``ViewField``."""
    order: str | None = None
    """What it is sorted by; unsorted views hold a random sample of their images."""
    needs_truth: bool = False
    """Whether it shows nothing where no hidden truth is known."""
    shows_pairs: bool = False
    """Whether it shows each image beside the one that it repeats."""


def all_views(runs: list[BrowsedRun], truth_known: bool = True, no_class: str = NO_CLASS_NAME) -> list[SavedView]:
    """Every view that can show something: of each round, of each two runs, and of the pool.

    ``no_class`` is the label of images that show none of the classes.
    """
    by_name = {run.name: run for run in runs}
    rounds = [run for run in runs if run.selection is not None]
    of_rounds = [view for run in rounds for view in round_views(run, _before(run, by_name), no_class)]
    views = [view for view in of_rounds if truth_known or not view.needs_truth]
    return [*views, *(_disagree(a, b) for a, b in combinations(runs, 2)), *pool_views()]


def _before(run: BrowsedRun, by_name: dict[str, BrowsedRun]) -> list[BrowsedRun]:
    """The rounds before a round, the nearest first."""
    chain = chain_of(run.name, {other.name: other.teacher for other in by_name.values()})
    known = (by_name[name] for name in chain[1:] if name in by_name)
    return list(takewhile(lambda teacher: teacher.selection is not None, known))


def round_views(run: BrowsedRun, before: list[BrowsedRun], no_class: str = NO_CLASS_NAME) -> list[SavedView]:
    """The views of a round, whose pseudo-labels its teacher gave; ``before``: the rounds before it, nearest first."""
    import polars as pl

    name, teacher = run.name, run.teacher
    decision, copies, pseudo, review = (f"{name}_{what}" for what in ("decision", "copies", "pseudo", "review"))

    def decided(title: str, description: str, *decisions: str) -> SavedView:
        return SavedView(
            f"{name}: {title}",
            description,
            lambda: pl.col(decision).is_in(decisions),
            lambda field: field(decision).is_in(list(decisions)),
        )

    views = [
        SavedView(
            f"{name}: look here first",
            "kept labels that are most likely wrong, by all runs' predictions; tag `reject`, or set `corrected`",
            lambda: pl.col(review).is_not_null(),
            lambda field: field(review) > 0,
            order=review,
        ),
        decided("kept", f"what {name} is trained on, with {teacher}'s labels", KEPT),
        decided("low confidence", f"{teacher}'s confidence is not above the threshold", LOW_CONFIDENCE),
        SavedView(
            f"{name}: filtered out",
            "left out before balancing: unsure, leaks, duplicates, rejected",
            lambda: ~pl.col(decision).is_in(NOT_FILTERED_OUT),
            lambda field: field(decision).exists() & ~field(decision).is_in(list(NOT_FILTERED_OUT)),
        ),
        decided("balanced: over quota", "sure enough, but its class has enough that are surer", OVER_QUOTA),
        SavedView(
            f"{name}: balanced: duplicated",
            "repeated in the epoch, since its class has too few",
            lambda: pl.col(copies) > 1,
            lambda field: field(copies) > 1,
        ),
        decided("corrected by hand", "labeled or rejected by a person", CORRECTED, REJECTED),
        SavedView(
            f"{name}: teacher and student disagree",
            f"{name} labels it otherwise than its teacher {teacher}",
            lambda: pl.col(f"{teacher}_label") != pl.col(f"{name}_label"),
            lambda field: (field("split") == "unlabeled") & (field(f"{teacher}.label") != field(f"{name}.label")),
        ),
        SavedView(
            f"{name}: confident and wrong",
            f"{teacher} is at least {CONFIDENT:.0%} sure of a label that hidden truth contradicts",
            lambda: (pl.col(f"{teacher}_confidence") >= CONFIDENT) & (pl.col("truth") != pl.col(f"{teacher}_label")),
            lambda field: (
                (field(f"{teacher}.confidence") >= CONFIDENT)
                & (field("split") == "unlabeled")
                & field("truth.label").exists()
                & (field("truth.label") != field(f"{teacher}.label"))
            ),
            needs_truth=True,
        ),
        SavedView(
            f"{name}: out-of-domain kept by mistake",
            "trained on, though hidden truth says that it shows none of the classes",
            lambda: pl.col(decision).is_in(TRAINED_ON) & (pl.col("truth") == NO_CLASS),
            lambda field: field(decision).is_in(list(TRAINED_ON)) & (field("truth.label") == no_class),
            needs_truth=True,
        ),
    ]
    if before:
        last = f"{before[0].name}_pseudo"
        views.append(
            SavedView(
                f"{name}: label flipped between rounds",
                f"its pseudo-label is another than it was for {before[0].name}",
                lambda: pl.col(pseudo) != pl.col(last),
                lambda field: field(pseudo) != field(last),
            )
        )
    if len(before) > 1:
        first = f"{before[1].name}_pseudo"
        views.append(
            SavedView(
                f"{name}: label flipped back",
                f"its pseudo-label is again what it was for {before[1].name}, and was another for {before[0].name}",
                lambda: (pl.col(pseudo) == pl.col(first)) & (pl.col(pseudo) != pl.col(last)),
                lambda field: (field(pseudo) == field(first)) & (field(pseudo) != field(last)),
            )
        )
    return views


def pool_views() -> list[SavedView]:
    """The views that are of no one round."""
    import polars as pl

    return [
        SavedView(
            "pool: label these first",
            "what `selftrain ask` asks a person: doubtful images of many kinds; set `corrected`",
            lambda: pl.col("asked").is_not_null(),
            lambda field: field("asked") > 0,
            order="asked",
        ),
        SavedView(
            "pool: suspected out-of-domain",
            "the images that the first teacher knows least of: perhaps they show none of the classes",
            lambda: pl.col("out_of_domain").is_not_null(),
            lambda field: field("out_of_domain") > 0,
            order="out_of_domain",
        ),
        SavedView(
            "pool: leaks and duplicates",
            "images that repeat another, each beside the one that it repeats; tag `no_copy` if it does not",
            lambda: pl.col("pair").is_not_null(),
            lambda field: field("pair").exists(),
            order="pair",
            shows_pairs=True,
        ),
    ]


def _disagree(a: BrowsedRun, b: BrowsedRun) -> SavedView:
    import polars as pl

    return SavedView(
        f"disagree: {a.name} and {b.name}",
        f"{a.name} and {b.name} label it differently",
        lambda: pl.col(f"{a.name}_label") != pl.col(f"{b.name}_label"),
        lambda field: (field("split") == "unlabeled") & (field(f"{a.name}.label") != field(f"{b.name}.label")),
    )
