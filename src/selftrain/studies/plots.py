"""A study's picture: each arm's mean over seeds with its 95% interval."""

import io
from typing import TYPE_CHECKING

from selftrain.report.drawing import BLUE, GREY

if TYPE_CHECKING:
    import polars as pl


def study_svg(table: "pl.DataFrame", figures: "pl.DataFrame", title: str) -> str:
    """Single seeds, means and intervals, arm by arm, as SVG text; shares are drawn as percentages.

    ``table`` is ``summary``'s, ``figures`` the single values.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure

    mpl.rcParams["text.parse_math"] = False  # names of arms are what somebody wrote
    figure = Figure(figsize=(7.5, 0.9 + 0.42 * len(table)), layout="constrained")
    axes = figure.subplots()
    names = []
    for place, (arm, run, mean, half, *_) in enumerate(table.iter_rows()):
        row = len(table) - place
        values = figures.filter((figures["arm"] == arm) & (figures["run"] == run))["value"]
        axes.plot([100 * value for value in values], [row] * len(values), "o", color=GREY, markersize=3, alpha=0.7)
        axes.errorbar(100 * mean, row, xerr=100 * half, fmt="o", color=BLUE, capsize=3)
        names.append(arm if table["run"].n_unique() == 1 else f"{arm}: {run}")
    axes.set_yticks(range(len(table), 0, -1), names)
    axes.set(xlabel="test accuracy, %", title=title)
    axes.spines[["top", "right"]].set_visible(False)
    text = io.StringIO()
    figure.savefig(text, format="svg")
    return text.getvalue()
