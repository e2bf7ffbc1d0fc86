"""How good the pseudo-labels are, without hidden truth: the report's chart, table and advice."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from selftrain.evaluation.label_quality import FEW
from selftrain.report.drawing import BLUE, GREEN, GREY, RED, as_svg, panels_figure, read_csv, shortened
from selftrain.report.runs import EvaluatedRun

if TYPE_CHECKING:
    import polars as pl

SHOWN_CLASSES = 100
"""Classes in a round's table; of more, those with the lowest expected precision."""

DRAWN_CLASSES = 12
"""Of them, those whose curves are drawn."""


@dataclass(frozen=True)
class QualitySection:
    """A round's estimates, ready for the template."""

    run: EvaluatedRun
    classes: list[dict[str, Any]]
    """Rows of the labels that are trained on, the worst class first."""
    advice: str
    chart: str
    """Curves of the worst classes."""
    left_out: int
    """Classes that are not in the table."""
    unseen: int
    """Classes with labels of which no validation image says anything."""


def precision_chart(runs: list[EvaluatedRun]) -> str:
    """Expected precision against threshold with its interval, the truth where it is known, a panel a round."""
    figure, panels = panels_figure(len(runs), height=3.1)
    for axes, run in zip(panels, runs, strict=True):
        curve = _curve(run)
        seen = curve.filter(curve["precision"].is_not_null())
        axes.fill_between(seen["threshold"], seen["low"], seen["high"], color=BLUE, alpha=0.18, linewidth=0)
        axes.plot(seen["threshold"], seen["precision"], color=BLUE, label="expected precision, 95% interval")
        axes.plot(curve["threshold"], curve["coverage"], color=GREY, linewidth=1, label="coverage")
        if curve["true_precision"].null_count() < len(curve):
            axes.plot(curve["threshold"], curve["true_precision"], color=GREEN, linewidth=1.2, label="true precision")
        if run.metrics["recommended_threshold"] is not None:
            axes.axvline(
                run.metrics["recommended_threshold"], color=RED, linewidth=1, linestyle="--", label="recommended"
            )
        axes.set(xlim=(0, 1), ylim=(0, 1.03), xlabel="threshold")
        axes.set_title(f"labels for {run.name}", fontsize=10)
    handles = {
        label: handle for axes in panels for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    figure.legend(handles.values(), handles.keys(), frameon=False, fontsize=9, loc="outside upper center", ncols=4)
    return as_svg(figure)


def class_chart(run: EvaluatedRun, classes: list[str]) -> str:
    """The same for some classes of one round, a panel a class."""
    figure, panels = panels_figure(len(classes), height=2.2, share=True)
    table = read_csv(run.folder / "details" / "label_quality.csv", text=["class"])
    for axes, name in zip(panels, classes, strict=True):
        curve = table.filter(table["class"] == name)
        seen = curve.filter(curve["validation_images"] > 0)
        axes.fill_between(seen["threshold"], seen["low"], seen["high"], color=BLUE, alpha=0.18, linewidth=0)
        axes.plot(seen["threshold"], seen["precision"].cast(float), color=BLUE)
        axes.plot(curve["threshold"], curve["coverage"].cast(float), color=GREY, linewidth=1)
        axes.plot(curve["threshold"], curve["true_precision"].cast(float), color=GREEN, linewidth=1.2)
        axes.set(xlim=(0, 1), ylim=(0, 1.03))
        axes.set_title(shortened(name), fontsize=9)
    return as_svg(figure)


def quality_section(run: EvaluatedRun) -> QualitySection:
    """A round's table of classes, of the labels that it is trained on, and what to do."""
    import polars as pl

    table = read_csv(run.folder / "details" / "kept_quality.csv", text=["class"])
    by_class = table.filter(pl.col("class").is_not_null())
    worst = by_class.sort("precision", nulls_last=True).head(SHOWN_CLASSES)
    unseen = by_class.filter(pl.col("precision").is_null() & (pl.col("images") > 0))
    drawn = worst["class"].head(DRAWN_CLASSES).to_list()
    left_out = len(by_class) - len(worst)
    return QualitySection(run, worst.to_dicts(), advice(run), class_chart(run, drawn), left_out, len(unseen))


def advice(run: EvaluatedRun) -> str:
    """One or two sentences on the round's labels."""
    figures, target = run.metrics, run.metrics["target_precision"]
    now = figures["expected_precision"]
    sentence = (
        f"Of the labels that it is trained on, {now:.1%} are expected to be right "
        f"({figures['expected_precision_low']:.1%} – {figures['expected_precision_high']:.1%})"
        if now is not None
        else "Nothing can be expected of the labels that it is trained on: there are none of the teacher's, or no "
        "validation image of which it is as sure"
    )
    if figures["recommended_threshold"] is None:
        return (
            f"{sentence}. No threshold is recommended: none that has {FEW} validation images above it is expected to "
            f"give {target:.0%} right labels."
        )
    sentence = (
        f"{sentence}. The lowest threshold from which on {target:.0%} holds is {figures['recommended_threshold']:g}: "
        f"{figures['recommended_precision']:.1%} ({figures['recommended_precision_low']:.1%} – "
        f"{figures['recommended_precision_high']:.1%}) at a coverage of {figures['recommended_coverage']:.1%}"
    )
    if "recommended_precision_true" in figures:
        sentence += f"; hidden truth says {figures['recommended_precision_true']:.1%}"
    return f"{sentence}."


def _curve(run: EvaluatedRun) -> "pl.DataFrame":
    import polars as pl

    table = read_csv(run.folder / "details" / "label_quality.csv", text=["class"])
    return table.filter(pl.col("class").is_null()).with_columns(pl.col("true_precision", "precision").cast(pl.Float64))
