"""How good a round's pseudo-labels are: counts by class, decision, confidence and, where known, truth."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from selftrain.tables.parquet import collect, read_arrow, scan
from selftrain.tables.predictions import prediction_parts
from selftrain.tables.selection import CORRECTED, KEPT, TRAINED_ON, WHATEVER_THE_THRESHOLD, scan_selection
from selftrain.tables.truth import NO_CLASS

if TYPE_CHECKING:
    import polars as pl

CONFIDENCE_BINS = 100


def tally(selection: Path, truth: Path) -> "pl.DataFrame":
    """Counts of a selection's images by ``label, decision, bin`` of confidence (0…99).

    Columns: ``images, copies, confidence`` (their mean), ``lowest`` (confidence of them), ``known`` (images whose truth
    is known), ``correct, out_of_domain`` of those. NaN is no confidence at all, 0.
    """
    import polars as pl

    known = scan([truth]).rename({"label": "truth"})
    confidence = pl.col("confidence").fill_nan(0)
    bin_ = (confidence * CONFIDENCE_BINS).floor().clip(0, CONFIDENCE_BINS - 1).cast(pl.Int32)
    counts = (
        scan_selection(selection)
        .join(known, on="key", how="left")
        .group_by("label", "decision", bin_.alias("bin"))
        .agg(
            pl.len().alias("images"),
            pl.col("copies").sum(),
            confidence.cast(pl.Float64).mean(),
            confidence.min().alias("lowest"),
            pl.col("truth").is_not_null().sum().alias("known"),
            (pl.col("truth") == pl.col("label")).sum().alias("correct"),
            (pl.col("truth") == NO_CLASS).sum().alias("out_of_domain"),
        )
        .sort("label", "decision", "bin")
    )
    return collect(counts, selection)


def pseudo_label_metrics(counts: "pl.DataFrame") -> dict[str, Any]:
    """Coverage, and where truth is known, accuracy of the kept and of all pseudo-labels.

    ``kept`` counts everything that is trained on, corrected images too; accuracies are of the teacher's labels alone.
    """
    import polars as pl

    kept = counts.filter(pl.col("decision").is_in(TRAINED_ON))

    def total(rows: pl.DataFrame, column: str) -> int:
        return int(rows[column].sum())

    figures: dict[str, Any] = {
        "coverage": total(kept, "images") / total(counts, "images"),
        "kept": total(kept, "images"),
        "balanced": total(kept, "copies"),
    }
    machine = counts.filter(pl.col("decision") != CORRECTED)
    labels = machine.filter(pl.col("decision") == KEPT)
    if total(labels, "known"):
        figures["pseudo_label_accuracy"] = total(labels, "correct") / total(labels, "known")
        figures["out_of_domain_kept"] = total(labels, "out_of_domain")
    if total(machine, "known"):
        figures["pseudo_label_accuracy_unfiltered"] = total(machine, "correct") / total(machine, "known")
    return figures


def by_threshold(counts: "pl.DataFrame") -> "pl.DataFrame":
    """The counts of images that a threshold decides on, without those that stay out or in whatever the threshold."""
    return counts.filter(~counts["decision"].is_in(WHATEVER_THE_THRESHOLD))


def threshold_curve(counts: "pl.DataFrame") -> "pl.DataFrame":
    """``threshold, coverage, accuracy``: what each confidence threshold would keep, and how much of it is right.

    ``coverage`` is of the whole pool; ``accuracy`` is null where no kept image's truth is known.
    """
    import polars as pl

    images = counts["images"].sum()
    by_bin = by_threshold(counts).group_by("bin").agg(pl.col("images", "known", "correct").sum())
    grid = pl.DataFrame({"bin": range(CONFIDENCE_BINS)}, schema={"bin": pl.Int32}).join(by_bin, on="bin", how="left")
    above = grid.fill_null(0).sort("bin").with_columns(pl.col("images", "known", "correct").cum_sum(reverse=True))
    accuracy = pl.when(pl.col("known") > 0).then(pl.col("correct") / pl.col("known"))
    return above.select(
        threshold=pl.col("bin") / CONFIDENCE_BINS, coverage=pl.col("images") / images, accuracy=accuracy
    )


def class_balance(counts: "pl.DataFrame", classes: list[str]) -> "pl.DataFrame":
    """``class, predicted, kept, balanced``: images a class before the filter, after it, and in the balanced epoch."""
    import polars as pl

    kept = pl.col("decision").is_in(TRAINED_ON)
    by_class = counts.group_by("label").agg(
        pl.col("images").sum().alias("predicted"),
        pl.col("images").filter(kept).sum().alias("kept"),
        pl.col("copies").sum().alias("balanced"),
    )
    names = pl.DataFrame(
        {"label": range(len(classes)), "class": classes}, schema={"label": pl.Int32, "class": pl.String}
    )
    return names.join(by_class, on="label", how="left").fill_null(0).drop("label")


def confidence_histogram(counts: "pl.DataFrame") -> "pl.DataFrame":
    """``decision, confidence, images`` in twenty bins of confidence (its lower edge)."""
    import polars as pl

    confidence = (pl.col("bin") // 5) / 20
    return (
        counts.group_by("decision", confidence.alias("confidence"))
        .agg(pl.col("images").sum())
        .sort("decision", "confidence")
    )


def flips(predictions: Path, teacher_predictions: Path) -> "pl.DataFrame":
    """Images that a run labels otherwise than its teacher: ``key, label, confidence, teacher_label``.

    Both are the unlabeled split's tables; they are compared part by part.
    """
    import polars as pl

    changed = []
    for part in prediction_parts(predictions):
        student = pl.DataFrame(read_arrow(part, ["key", "label", "confidence"]))
        teacher = pl.DataFrame(read_arrow(teacher_predictions / part.name, ["key", "label"]))
        both = student.join(teacher.rename({"label": "teacher_label"}), on="key")
        changed.append(both.filter(pl.col("label") != pl.col("teacher_label")))
    return pl.concat(changed)
