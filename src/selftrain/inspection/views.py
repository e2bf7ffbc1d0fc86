"""The saved views: what each shows, which images it needs, and how FiftyOne filters for it.

Each view is told twice, as a polars filter over the tables (which images to extract) and as a FiftyOne
filter over the samples' fields (what the App shows); a test holds the two against each other.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from selftrain.inspection.rounds import Shown
from selftrain.predictions.selection import DUPLICATE, KEPT, LEAK, LOW_CONFIDENCE, OVER_QUOTA, REJECTED

if TYPE_CHECKING:
    import polars as pl

NO_CLASS_NAME = "none of the classes"
FILTERED_OUT = (LOW_CONFIDENCE, LEAK, DUPLICATE, REJECTED)


@dataclass(frozen=True)
class SavedView:
    """One saved view of a round."""

    name: str
    description: str
    rows: Callable[[], "pl.Expr"]
    """Over the round's table; see ``tables.round_table``."""
    samples: Callable[[Any], Any]
    """Over FiftyOne's ``ViewField``."""


def decision_field(round_: str) -> str:
    """The sample field with a round's decision."""
    return f"{round_}_decision"


def copies_field(round_: str) -> str:
    """The sample field with a round's copies."""
    return f"{round_}_copies"


def round_views(run: Shown, previous: Shown | None) -> list[SavedView]:
    """The views of a round, whose pseudo-labels its teacher gave; ``previous`` is the round that made that teacher."""
    import polars as pl

    name, teacher = run.name, run.teacher
    decision, copies = decision_field(name), copies_field(name)

    def decided(title: str, description: str, *decisions: str) -> SavedView:
        return SavedView(
            f"{name}: {title}",
            description,
            lambda: pl.col("decision").is_in(decisions),
            lambda field: field(decision).is_in(list(decisions)),
        )

    views = [
        decided("low confidence", f"{teacher}'s confidence is not above the threshold", LOW_CONFIDENCE),
        decided("filtered out", "left out before balancing: unsure, leaks, duplicates, rejected", *FILTERED_OUT),
        decided("balanced: over quota", "sure enough, but its class has enough that are surer", OVER_QUOTA),
        SavedView(
            f"{name}: balanced: duplicated",
            "repeated in the epoch, since its class has too few",
            lambda: pl.col("copies") > 1,
            lambda field: field(copies) > 1,
        ),
        decided("kept", f"what {name} is trained on, with {teacher}'s labels", KEPT),
        SavedView(
            f"{name}: teacher and student disagree",
            f"{name} labels it otherwise than its teacher {teacher}",
            lambda: pl.col("label") != pl.col("student_label"),
            lambda field: field(f"{teacher}.label") != field(f"{name}.label"),
        ),
        SavedView(
            f"{name}: out-of-domain kept by mistake",
            "kept, though hidden truth says that it shows none of the classes",
            lambda: (pl.col("decision") == KEPT) & (pl.col("truth") == -1),
            lambda field: (field(decision) == KEPT) & (field("truth.label") == NO_CLASS_NAME),
        ),
    ]
    if previous is not None:
        views.append(
            SavedView(
                f"{name}: label flipped between rounds",
                f"its pseudo-label is another than it was for {previous.name}",
                lambda: pl.col("label") != pl.col("previous_label"),
                lambda field: field(f"{teacher}.label") != field(f"{previous.teacher}.label"),
            )
        )
    return views
