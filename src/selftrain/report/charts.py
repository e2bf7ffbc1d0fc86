"""The report's charts, as SVG text that takes its text colour from the page."""

from collections.abc import Iterable
from typing import Any

import numpy as np

from selftrain.report.drawing import BLUE, GREEN, GREY, ORANGE, RED, as_svg, panels_figure, read_csv, shortened
from selftrain.report.runs import EvaluatedRun

LETTERS = 30
"""That fit below a panel, if every class has room for the longest name."""

_DECISION_COLOURS = {
    "kept": GREEN,
    "over_quota": ORANGE,
    "low_confidence": GREY,
    "leak": RED,
    "duplicate": "#8a63b8",
    "not_sampled": "#cfcfcf",
    "out_of_domain": "#2e8f8f",
    "rejected": "#5b2b2b",
    "corrected": BLUE,
}
_COLOURS_OF_POLICIES = ("#b08d2e", "#b0578d", "#6b7f2e")
"""Of reasons that only some selection policy gives."""


def decision_colours(made: Iterable[str]) -> dict[str, str]:
    """A colour for each decision that was made: the usual ones first, then a policy's in the order of their names."""
    decisions = set(made)
    usual = {name: colour for name, colour in _DECISION_COLOURS.items() if name in decisions}
    others = sorted(decisions - usual.keys())
    return usual | {name: _COLOURS_OF_POLICIES[i % len(_COLOURS_OF_POLICIES)] for i, name in enumerate(others)}


def accuracy_chart(runs: list[EvaluatedRun]) -> str:
    """Test accuracy of each run with its 95% interval."""
    figure, (axes,) = panels_figure(1, height=0.5 + 0.4 * len(runs), width=7)
    values = np.array([[run.metrics[f"test_accuracy{end}"] for end in ("", "_low", "_high")] for run in runs]) * 100
    places = np.arange(len(runs))[::-1]
    axes.errorbar(
        values[:, 0],
        places,
        xerr=[values[:, 0] - values[:, 1], values[:, 2] - values[:, 0]],
        fmt="o",
        color=BLUE,
        capsize=4,
        linewidth=1.5,
    )
    for value, place in zip(values[:, 0], places, strict=True):
        axes.annotate(
            f"{value:.1f}", (value, place), textcoords="offset points", xytext=(0, 6), ha="center", fontsize=9
        )
    axes.set_yticks(places, [run.name for run in runs])
    axes.set_ylim(-0.6, len(runs) - 0.3)
    axes.set_xlabel("test accuracy, %")
    return as_svg(figure)


def reliability_chart(runs: list[EvaluatedRun]) -> str:
    """Accuracy against confidence on the test split, a panel a run; the diagonal is perfect calibration."""
    figure, panels = panels_figure(len(runs))
    for axes, run in zip(panels, runs, strict=True):
        bins = read_csv(run.folder / "reliability.csv")
        axes.plot([0, 1], [0, 1], color=GREY, linewidth=1, linestyle="--")
        share = bins["images"].to_numpy() / bins["images"].sum()
        axes.plot(bins["confidence"], bins["accuracy"], color=BLUE, linewidth=1.2)
        axes.scatter(bins["confidence"], bins["accuracy"], s=8 + 160 * share, color=BLUE)
        axes.set(xlim=(0, 1.03), ylim=(0, 1.03), xlabel="confidence", aspect="equal")
        axes.set_title(f"{run.name}: error {run.metrics['test_calibration_error']:.3f}", fontsize=10)
    panels[0].set_ylabel("accuracy")
    return as_svg(figure)


def threshold_chart(runs: list[EvaluatedRun]) -> str:
    """What each confidence threshold keeps, and how much of that is right, a panel a round."""
    figure, panels = panels_figure(len(runs))
    for axes, run in zip(panels, runs, strict=True):
        curve = read_csv(run.folder / "thresholds.csv")
        axes.plot(curve["threshold"], curve["coverage"], color=BLUE, label="coverage")
        if curve["accuracy"].null_count() < len(curve):
            axes.plot(curve["threshold"], curve["accuracy"].cast(float), color=GREEN, label="accuracy")
        axes.set(xlim=(0, 1), ylim=(0, 1.03), xlabel="threshold")
        axes.set_title(f"labels for {run.name}", fontsize=10)
    panels[0].legend(frameon=False, fontsize=9, loc="lower left")
    return as_svg(figure)


def confidence_chart(runs: list[EvaluatedRun]) -> str:
    """Histograms of the teacher's confidence, by what was decided, a panel a round."""
    figure, panels = panels_figure(len(runs))
    in_legend: set[str] = set()
    for axes, run in zip(panels, runs, strict=True):
        histogram = read_csv(run.folder / "details" / "confidence.csv")
        base = np.zeros(20)
        for decision, colour in decision_colours(histogram["decision"]).items():
            rows = histogram.filter(histogram["decision"] == decision)
            counts = np.zeros(20)
            counts[np.rint(rows["confidence"].to_numpy() * 20).astype(int)] = rows["images"].to_numpy()
            label = None if decision in in_legend else decision.replace("_", " ")
            axes.bar(np.arange(20) / 20 + 0.025, counts, 0.045, bottom=base, color=colour, label=label)
            base += counts
            in_legend.add(decision)
        axes.set(xlim=(0, 1), xlabel="teacher's confidence")
        axes.set_title(f"labels for {run.name}", fontsize=10)
    panels[0].set_ylabel("images")
    figure.legend(frameon=False, fontsize=9, loc="outside upper center", ncols=len(in_legend))
    return as_svg(figure)


def balance_chart(runs: list[EvaluatedRun]) -> str:
    """Images a class: as predicted, as kept, and in the balanced epoch, a panel a round."""
    figure, panels = panels_figure(len(runs))
    for axes, run in zip(panels, runs, strict=True):
        balance = read_csv(run.folder / "class_balance.csv", text=["class"])
        places = np.arange(len(balance))
        axes.bar(places, balance["predicted"], 0.8, color=GREY, alpha=0.4, label="predicted")
        axes.bar(places, balance["kept"], 0.8, color=GREEN, label="kept")
        axes.step(
            np.append(places, len(places)) - 0.5,
            [*balance["balanced"], balance["balanced"][-1]],
            where="post",
            color=ORANGE,
            linewidth=1.5,
            label="balanced",
        )
        if len(balance) <= 20:
            names = [shortened(name) for name in balance["class"]]
            upright = len(names) * max(map(len, names)) > LETTERS
            axes.set_xticks(places, names, rotation=90 if upright else 0, fontsize=8)
        axes.set_title(f"labels for {run.name}", fontsize=10)
    panels[0].set_ylabel("images")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, frameon=False, fontsize=9, loc="outside upper center", ncols=3)
    return as_svg(figure)


def confusion_chart(run: EvaluatedRun) -> str:
    """A run's confusion matrix on the test split, in shares of each true class."""
    matrix = np.loadtxt(run.folder / "details" / "confusion_matrix.csv", delimiter=",", ndmin=2)
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    side = min(9.0, 2.5 + 0.3 * len(matrix))
    figure, (axes,) = panels_figure(1, height=side, width=side)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    classes = run.record["classes"]
    if len(classes) <= 40:
        axes.set_xticks(range(len(classes)), map(shortened, classes), rotation=90, fontsize=8)
        axes.set_yticks(range(len(classes)), map(shortened, classes), fontsize=8)
    if len(classes) <= 15:
        for row, column in np.argwhere(matrix > 0):
            colour = "white" if shares[row, column] > 0.5 else "#202020"
            axes.text(column, row, f"{matrix[row, column]:.0f}", ha="center", va="center", fontsize=8, color=colour)
    axes.set(xlabel="predicted", ylabel="actual")
    return as_svg(figure)


def attack_chart(figures: dict[str, dict[str, Any]]) -> str:
    """Accuracy against the size of the attack, one panel an attack, as the paper's Figure 4."""
    attacks = [attack for attack in ("fgsm", "pgd") if any(attack in of_run for of_run in figures.values())]
    figure, panels = panels_figure(len(attacks), height=3.2, width=4.2 * len(attacks))
    for axes, attack in zip(panels, attacks, strict=True):
        for place, (name, of_run) in enumerate(figures.items()):
            curve = {float(size): accuracy for size, accuracy in of_run.get(attack, {}).items()}
            axes.plot(
                [*curve],
                [100 * value for value in curve.values()],
                marker="o",
                markersize=3,
                label=name,
                color=f"C{place}",
            )
        axes.set(xlabel="ε, of 255", ylim=(0, 100), title=attack.upper())
    panels[0].set_ylabel("accuracy, %")
    panels[-1].legend(frameon=False, fontsize=9)
    return as_svg(figure)


def error_chart(figures: dict[str, dict[str, Any]]) -> str:
    """Each corruption's error, a dot a run."""
    figures = {name: of_run for name, of_run in figures.items() if "corruption_errors" in of_run}
    names = [*next(iter(figures.values()))["corruption_errors"]]
    figure, (axes,) = panels_figure(1, height=0.9 + 0.26 * len(names), width=7)
    places = np.arange(len(names))[::-1]
    for place, (name, of_run) in enumerate(figures.items()):
        errors = [100 * of_run["corruption_errors"][corruption] for corruption in names]
        axes.plot(errors, places, "o", label=name, color=f"C{place}", alpha=0.85)
    axes.set_yticks(places, [name.replace("_", " ") for name in names])
    axes.set_xlabel("error, %, mean over five severities")
    axes.grid(axis="y", alpha=0.25)
    axes.legend(frameon=False, fontsize=9)
    return as_svg(figure)
