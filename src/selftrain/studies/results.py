"""A study's figures from MLflow: by arm and seed, with intervals."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from selftrain.plumbing.errors import UserError
from selftrain.plumbing.tracking import finished_runs

if TYPE_CHECKING:
    import polars as pl

EXPERIMENT = "selftrain studies"


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds and half of its 95% interval (Student's t); NaN from a single seed."""

    mean: float
    half: float
    count: int


def estimate(values: "list[float] | np.ndarray") -> Estimate:
    """The mean over seeds with its interval."""
    from scipy.stats import t

    array = np.asarray(values, dtype=float)
    count = len(array)
    half = float("nan")
    if count > 1:
        half = float(t.ppf(0.975, count - 1) * array.std(ddof=1) / count**0.5)
    return Estimate(float(array.mean()), half, count)


def figures(
    study: str, arms: Collection[str], metric: str = "test_accuracy", version: str | None = None
) -> "pl.DataFrame":
    """``arm, run, seed, value`` of a metric, arms in the order given, all from one version; None: that recorded last.

    Raises UserError if nothing of the study is recorded.
    """
    import polars as pl

    runs = finished_runs(f"tags.study = '{study}'", EXPERIMENT)
    shown = version or (runs[0].data.tags["version"] if runs else "")
    of_version = [run for run in runs if run.data.tags["version"] == shown]
    rows = {}
    for arm in arms:
        for run in reversed(of_version):
            tags = run.data.tags
            if tags["arm"] == arm and metric in run.data.metrics:
                rows[arm, tags["run"], int(tags["seed"])] = run.data.metrics[metric]
    if not rows:
        raise UserError(f"MLflow has no figures of study '{study}'; run `make study NAME={study}`")
    first = next(iter(arms))
    if not any(arm == first for arm, _, _ in rows):
        raise UserError(f"study '{study}': '{first}', which the others are held against, has no figure '{metric}' yet")
    columns = [(*key, value) for key, value in rows.items()]
    return pl.DataFrame(columns, schema=["arm", "run", "seed", "value"], orient="row")


def summary(table: "pl.DataFrame") -> "pl.DataFrame":
    """``arm, run, mean, half, gain, gain_half, seeds``: each arm over its seeds, in order.

    ``gain`` is the mean difference to the first row over the seeds that both have: paired, since a seed also draws
    the labeled images.
    """
    import polars as pl

    groups = table.group_by("arm", "run", maintain_order=True)
    values = {key: dict(zip(rows["seed"], rows["value"], strict=True)) for key, rows in groups}
    first = next(iter(values.values()))
    rows = []
    for (arm, run), of_run in values.items():
        level = estimate(list(of_run.values()))
        common = sorted(of_run.keys() & first.keys())
        gain = estimate([of_run[seed] - first[seed] for seed in common])
        rows.append((arm, run, level.mean, level.half, gain.mean, gain.half, level.count))
    return pl.DataFrame(rows, schema=["arm", "run", "mean", "half", "gain", "gain_half", "seeds"], orient="row")


def recorded(study: str, version: str) -> set[tuple[str, int, str]]:
    """(arm, seed, run) of the figures that MLflow has of a study from this version of the code and parameters."""
    tags = [
        run.data.tags for run in finished_runs(f"tags.study = '{study}' and tags.version = '{version}'", EXPERIMENT)
    ]
    return {(tag["arm"], int(tag["seed"]), tag["run"]) for tag in tags}


def print_study(study: str, arms: Collection[str], metric: str = "test_accuracy", version: str | None = None) -> None:
    """Print a study's table: percentages, with 95% intervals over the seeds. ``version`` as for ``figures``."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(title=f"{study}: {metric.replace('_', ' ')}, %")
    for place, heading in enumerate(("arm", "run", "mean", "less the first, paired", "seeds")):
        table.add_column(heading, justify="left" if place < 2 else "right", no_wrap=True)
    for arm, run, mean, half, gain, gain_half, seeds in summary(figures(study, arms, metric, version)).iter_rows():
        gained = f"{gain:+.1%} ± {gain_half:.1%}".replace("%", "")
        table.add_row(escape(arm), run, f"{mean:.1%} ± {half:.1%}".replace("%", ""), gained, str(seeds))
    Console(width=110).print(table)
