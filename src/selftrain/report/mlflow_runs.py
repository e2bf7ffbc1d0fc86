"""A pipeline's newest runs read from MLflow, and pictures of them side by side."""

from collections.abc import Collection
from typing import TYPE_CHECKING

from selftrain.plumbing.errors import UserError
from selftrain.plumbing.tracking import connect, finished_runs
from selftrain.report.drawing import GREY, as_svg, panels_figure

if TYPE_CHECKING:
    import polars as pl


def newest_runs(pipeline: str, names: Collection[str]) -> "pl.DataFrame":
    """``run, run_id, teacher`` and every final figure, one row a run name: its newest finished training, oldest first.

    Of the runs in ``names``: MLflow also has those that were taken out of params.yaml. Raises UserError if it has none.
    """
    import polars as pl

    newest: dict[str, dict[str, object]] = {}
    for run in finished_runs(f"tags.pipeline = '{pipeline}'"):
        name = run.data.tags["round"]
        if name not in names:
            continue
        row = {"run": name, "run_id": run.info.run_id, "teacher": run.data.tags.get("teacher") or None}
        newest.setdefault(name, row | dict(run.data.metrics))
    if not newest:
        raise UserError(f"MLflow has no finished run of the pipeline '{pipeline}'; run `dvc repro`")
    return pl.DataFrame(list(newest.values())[::-1], infer_schema_length=None)


def curves(runs: "pl.DataFrame", metric: str) -> "pl.DataFrame":
    """``run, step, value``: a metric's history in each of ``newest_runs``."""
    import polars as pl

    client, _ = connect()
    rows = [
        (name, point.step, point.value)
        for name, run_id in runs.select("run", "run_id").iter_rows()
        for point in client.get_metric_history(run_id, metric)
    ]
    return pl.DataFrame(rows, schema={"run": pl.String, "step": pl.Int64, "value": pl.Float64}, orient="row")


def curves_svg(runs: "pl.DataFrame", metrics: list[str]) -> str:
    """Curves of several metrics, a panel each, the runs one over the other."""
    figure, panels = panels_figure(len(metrics), height=3.0, width=10.0)
    for axes, metric in zip(panels, metrics, strict=True):
        history = curves(runs, metric)
        for place, name in enumerate(runs["run"]):
            of_run = history.filter(history["run"] == name).sort("step")
            axes.plot(of_run["step"], of_run["value"], label=name, color=f"C{place}", linewidth=1.4)
        axes.set_title(metric.replace("_", " "), fontsize=10)
        axes.set_xlabel("step")
    figure.legend(
        *panels[0].get_legend_handles_labels(), frameon=False, fontsize=9, loc="outside upper center", ncols=6
    )
    return as_svg(figure)


def parallel_svg(runs: "pl.DataFrame", metrics: list[str]) -> str:
    """Parallel coordinates: a line a run over the metrics, each axis from the worst to the best of the runs.

    Runs that lack one of the metrics are left out. Raises UserError if no run has all of them.
    """
    for name in metrics:
        if name not in runs.columns or runs[name].null_count() == len(runs):
            raise UserError(f"no run has the figure '{name}'")
    shown = runs.drop_nulls(metrics)
    if not len(shown):
        raise UserError(f"no run has all of the figures {', '.join(metrics)}")
    figure, (axes,) = panels_figure(1, height=3.6, width=10.0)
    columns = [shown[name].to_numpy() for name in metrics]
    lows, highs = ([float(column.min()) for column in columns], [float(column.max()) for column in columns])
    for place, row in enumerate(shown.iter_rows(named=True)):
        heights = [
            (row[name] - low) / (high - low) if high > low else 0.5
            for name, low, high in zip(metrics, lows, highs, strict=True)
        ]
        axes.plot(range(len(metrics)), heights, marker="o", label=row["run"], color=f"C{place}")
    for x, (name, low, high) in enumerate(zip(metrics, lows, highs, strict=True)):
        axes.plot([x, x], [0, 1], color=GREY, linewidth=0.8)
        axes.annotate(f"{high:.3g}", (x, 1.04), ha="center", fontsize=9)
        axes.annotate(f"{low:.3g}", (x, -0.1), ha="center", fontsize=9)
        axes.annotate(name.replace("_", "\n"), (x, -0.16), ha="center", va="top", fontsize=9)
    axes.set(ylim=(-0.45, 1.15), xlim=(-0.4, len(metrics) - 0.6))
    axes.axis("off")
    figure.legend(frameon=False, fontsize=9, loc="outside upper center", ncols=6)
    return as_svg(figure)
