"""Figures of one style, as SVG text that takes its text colour from the page."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from selftrain.tables.cells import from_cells

if TYPE_CHECKING:
    import polars as pl
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Matplotlib cannot write `currentColor`; this colour is replaced by it.
INK = "#010203"
BLUE, ORANGE, GREEN, RED, GREY = "#3b76c4", "#e0862a", "#3f9c5a", "#c8504b", "#8c8c8c"
LONGEST = 24
"""Letters of a class's name in a chart."""


def read_csv(path: Path, text: Sequence[str] = ()) -> "pl.DataFrame":
    """A table; the columns in ``text`` are a user's, and not taken for numbers, whatever they look like."""
    import polars as pl

    return from_cells(pl.read_csv(path, schema_overrides=dict.fromkeys(text, pl.String)), *text)


def panels_figure(
    panels: int, height: float = 2.9, width: float | None = None, columns: int = 3, share: bool = False
) -> "tuple[Figure, list[Axes]]":
    """A figure of so many panels, at most ``columns`` beside each other; sizes in inches.

    Panels that ``share`` their axes have numbers at the outer ones alone.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure

    mpl.rcParams.update(
        {
            "svg.fonttype": "none", "svg.hashsalt": "selftrain", "font.family": "sans-serif", "font.size": 10,
            "text.color": INK, "axes.labelcolor": INK, "axes.edgecolor": INK, "xtick.color": INK, "ytick.color": INK,
            "text.parse_math": False,
            "axes.spines.top": False, "axes.spines.right": False, "axes.facecolor": "none", "figure.facecolor": "none",
        }
    )  # fmt: skip
    columns = min(panels, columns)
    rows = -(-panels // columns)
    figure = Figure(figsize=(width or max(4.8, 3.2 * columns), height * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False, sharex=share, sharey=share).reshape(-1)
    for unused in axes[panels:]:
        unused.remove()
    # The lowest of each column, also above a place that is empty.
    for lowest in axes[max(0, panels - columns) : panels]:
        lowest.tick_params(labelbottom=True)
    return figure, list(axes[:panels])


def shortened(name: str) -> str:
    """A class's name as a chart has room for it."""
    return name if len(name) <= LONGEST else f"{name[: LONGEST - 1]}…"


def as_svg(figure: "Figure") -> str:
    """A figure as SVG text: the same figure, the same text."""
    text = io.StringIO()
    metadata: dict[str, Any] = {"Date": None, "Creator": None}
    figure.savefig(text, format="svg", metadata=metadata)
    svg = text.getvalue()
    return svg[svg.index("<svg") :].replace(INK, "currentColor")
