"""The two-moons experiment's figures: how often each method finds the moons, and where it draws the line."""

import io
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from selftrain.evaluation.metrics import proportion_interval
from selftrain.plumbing.errors import UserError
from selftrain.studies.two_moons import SETTINGS, Draws, MoonsConfig, accuracies, decisions, train

if TYPE_CHECKING:
    import polars as pl

SUCCESS = 0.95
"""Share of all points in their own moon from which a classifier counts as the right one."""
GRID = 121
MARGIN = 0.4
NAMES = {
    "supervised": "Supervised Learning",
    "pseudo_label": "Pseudo Labels",
    "meta_pseudo_labels": "Meta Pseudo Labels",
    "teacher": "its teacher",
    "all_labels": "with every label",
}
UDA_NAMES = NAMES | {"supervised": "UDA", "pseudo_label": "Pseudo Labels of UDA"}


@dataclass(frozen=True)
class Outcome:
    """What one setting gave: accuracies by method, each (D,), and the first draws' decisions on a grid."""

    setting: str
    names: dict[str, str]
    """What each method is called under this setting."""
    accuracy: dict[str, NDArray[np.float64]]
    maps: dict[str, NDArray[np.int64]]  # (shown, GRID, GRID)


def grid(points: NDArray[np.float32]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The two axes of a picture around the points (N, 2), each (GRID,)."""
    low, high = points.min(axis=0) - MARGIN, points.max(axis=0) + MARGIN
    return np.linspace(low[0], high[0], GRID), np.linspace(low[1], high[1], GRID)


def run_setting(name: str, setting: MoonsConfig, draws: int, seed: int, shown: int = 1) -> Outcome:
    """One setting over all draws, on one core."""
    import torch

    torch.set_num_threads(1)
    made = Draws(setting, draws)
    weights = train(setting, made, seed)
    pictures = [np.stack(np.meshgrid(*grid(points)), axis=-1).reshape(-1, 2) for points in made.points[:shown]]
    maps = {
        method: decisions({key: value[:shown] for key, value in trained.items()}, np.array(pictures, dtype=np.float32))
        for method, trained in weights.items()
    }
    return Outcome(
        name,
        UDA_NAMES if setting.uda_factor else NAMES,
        {method: accuracies(trained, made) for method, trained in weights.items()},
        {method: values.reshape(shown, GRID, GRID) for method, values in maps.items()},
    )


def success_rate(accuracy: NDArray[np.float64]) -> tuple[float, float, float]:
    """Share of draws (D,) with the right classifier, and its 95% interval (Wilson's), each 0–1."""
    found = int((accuracy >= SUCCESS).sum())
    return found / len(accuracy), *proportion_interval(found, len(accuracy))


def table(outcomes: Sequence[Outcome]) -> "pl.DataFrame":
    """``setting, method, success, low, high, mean_accuracy, draws``."""
    import polars as pl

    rows = [
        (outcome.setting, outcome.names[method], *success_rate(values), float(values.mean()), len(values))
        for outcome in outcomes
        for method, values in outcome.accuracy.items()
    ]
    columns = ["setting", "method", "success", "low", "high", "mean_accuracy", "draws"]
    return pl.DataFrame(rows, schema=columns, orient="row")


def figure_svg(outcome: Outcome, draws: Draws, draw: int = 0) -> str:
    """The paper's Figure 2 for one draw: each method's regions, the points and the six labels, as SVG text."""
    from matplotlib.colors import ListedColormap
    from matplotlib.figure import Figure

    points, moons, labeled = draws.points[draw], draws.moons[draw], draws.labeled[draw]
    figure = Figure(figsize=(10, 2.9), layout="constrained")
    figure.suptitle(f"{outcome.setting}, draw {draw}", fontsize=10)
    regions, colours = ListedColormap(["#f6c9c4", "#cfe8cf"]), np.array(["#c0392b", "#2e7d32"])
    methods = list(NAMES)[:3]
    for axes, method in zip(figure.subplots(1, 3), methods, strict=True):
        axes.pcolormesh(*grid(points), outcome.maps[method][draw], cmap=regions, vmin=0, vmax=1, rasterized=True)
        axes.scatter(*points[::4].T, s=4, c=colours[moons[::4]], linewidths=0, alpha=0.7, rasterized=True)
        axes.scatter(
            *points[labeled].T, s=60, c=colours[moons[labeled]], marker="*", edgecolors="black", linewidths=0.7
        )
        axes.set_title(f"{outcome.names[method]}: {outcome.accuracy[method][draw]:.1%}", fontsize=10)
        axes.set(xticks=[], yticks=[])
    text = io.StringIO()
    figure.savefig(text, format="svg", dpi=100, metadata={"Date": None})
    return text.getvalue()


def run_all(draws: int, steps: int | None, words: str, seed: int, out: Path) -> None:
    """Every setting with these words over the draws, two at a time; the table is printed and, with the figures, written
    to ``out``. Raises UserError if no setting has them.
    """
    from rich.console import Console
    from rich.table import Table

    chosen = {name: config for name, config in SETTINGS.items() if words in name}
    if not chosen:
        raise UserError(f"--setting: no setting is called '{words}'; there are: {', '.join(SETTINGS)}")
    settings = {name: config.model_copy(update={"steps": steps or config.steps}) for name, config in chosen.items()}
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        waiting = [pool.submit(run_setting, name, setting, draws, seed) for name, setting in settings.items()]
        outcomes = [one.result() for one in waiting]
    found = table(outcomes)
    out.mkdir(parents=True, exist_ok=True)
    found.write_csv(out / "two_moons.csv")
    for outcome in outcomes:
        place = list(SETTINGS).index(outcome.setting)
        (out / f"two_moons_{place}.svg").write_text(figure_svg(outcome, Draws(SETTINGS[outcome.setting], 1)))
    shown = Table(title=f"two moons, {draws} draws: at least {SUCCESS:.0%} of the points right")
    for heading in ("setting", "method", "success", "95% interval", "mean accuracy"):
        shown.add_column(heading, justify="left" if heading in ("setting", "method") else "right", no_wrap=True)
    for setting, method, success, low, high, mean, _ in found.iter_rows():
        shown.add_row(setting, method, f"{success:.0%}", f"{low:.0%} – {high:.0%}", f"{mean:.1%}")
    Console(width=110).print(shown)
    print(f"figures: {out}")
