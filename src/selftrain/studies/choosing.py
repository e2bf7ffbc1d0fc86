"""Every algorithm side by side, from MLflow: accuracy, calibration, robustness and time, in several conditions."""

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from selftrain.plumbing.errors import UserError
from selftrain.plumbing.sections import did_you_mean
from selftrain.plumbing.tracking import finished_runs
from selftrain.studies.results import estimate

if TYPE_CHECKING:
    import polars as pl

PIPELINE = "choosing"
SEEDS = range(5)
REFERENCE = "supervised"
"""The run that gains are relative to, if no other is named: labels alone, as many images a step."""


@dataclass(frozen=True)
class Condition:
    """What is otherwise than in the base condition."""

    title: str
    digits: dict[str, int] = field(default_factory=dict)
    """Laid over the main job's ``digits``."""
    runs: tuple[str, ...] | None = None
    """None: all."""


SOME = (
    "teacher", "supervised", "pretraining", "noisy_student", "uda", "fixmatch", "meta_pseudo_labels",
    "gated_meta_pseudo_labels", "distillation",
)  # fmt: skip
CONDITIONS = {
    "base": Condition("5 labels a class, 200 crops of no class in the pool"),
    "few_labels": Condition("2 labels a class", {"labels_per_class": 2}, SOME),
    "out_of_domain": Condition("1,000 crops of no class in the pool", {"out_of_domain": 1000}, SOME),
}


def with_runs(params: dict[str, Any], runs: tuple[str, ...]) -> dict[str, Any]:
    """A pipeline's parameters with some of its runs alone."""
    of_runs = {
        section: {name: entry for name, entry in params[section].items() if name in runs}
        for section in ("supervised", "rounds", "tested")
    }
    return {**params, **of_runs, "runs": list(runs)}


@dataclass(frozen=True)
class Measure:
    """A column of the table."""

    metric: str
    """In MLflow."""
    title: str
    factor: float
    digits: int
    higher_is_better: bool = False
    least: bool = False
    """Of seeds the least is taken, not the mean: what else a machine does only adds to a time."""


MEASURES = (
    Measure("test_accuracy", "accuracy, %", 100, 1, True),
    Measure("test_calibration_error", "calibration error, %", 100, 1),
    Measure("robustness/mean_corruption_error", "error under corruptions, %", 100, 1),
    Measure("train_seconds", "training, s (fastest)", 1, 0, least=True),
)


def experiment_of(condition: str) -> str:
    """The MLflow experiment of a condition."""
    return f"selftrain {PIPELINE}: {condition}"


def choosing_runs(condition: str) -> "pl.DataFrame":
    """``run, seed`` and a column a measure: the newest finished run of each name and seed."""
    import polars as pl

    rows: dict[tuple[str, int], dict[str, Any]] = {}
    for run in finished_runs(f"tags.pipeline = '{PIPELINE}'", experiment_of(condition)):
        key = (run.data.tags["round"], int(run.data.params["seed"]))
        figures = {measure.metric: run.data.metrics.get(measure.metric) for measure in MEASURES}
        rows.setdefault(key, {"run": key[0], "seed": key[1], **figures})
    schema: dict[str, Any] = {
        "run": pl.String,
        "seed": pl.Int64,
        **{measure.metric: pl.Float64 for measure in MEASURES},
    }
    return pl.DataFrame(list(rows.values()), schema=schema).sort("run", "seed")


def compared(runs: "pl.DataFrame", reference: str = REFERENCE) -> "pl.DataFrame":
    """Of evaluated runs a row a run, the most accurate first: mean and half of its 95% interval of each measure, and of
    the accuracy's gain over ``reference``, paired by seed; ``told_apart``: whether that interval leaves out zero.
    """
    import polars as pl

    accuracy = MEASURES[0].metric
    base = dict(runs.filter(pl.col("run") == reference).select("seed", accuracy).iter_rows())
    rows = []
    for (name,), of_run in runs.group_by("run", maintain_order=True):
        row: dict[str, Any] = {"run": name, "seeds": len(of_run)}
        for measure in MEASURES:
            values = of_run[measure.metric].drop_nulls().to_list()
            row |= _mean_and_half(measure.metric, values)
            if measure.least and values:
                row |= {measure.metric: min(values), f"{measure.metric}_half": None}
        by_seed = dict(of_run.select("seed", accuracy).iter_rows())
        row |= _mean_and_half("gain", [by_seed[seed] - base[seed] for seed in by_seed.keys() & base.keys()])
        row["told_apart"] = row["gain"] is not None and abs(row["gain"]) > row["gain_half"]
        rows.append(row)
    return pl.DataFrame(rows, infer_schema_length=None).sort(accuracy, descending=True)


def _mean_and_half(name: str, values: list[float]) -> dict[str, float | None]:
    if not values:
        return {name: None, f"{name}_half": None}
    found = estimate(values)
    return {name: found.mean, f"{name}_half": found.half}


def _cell(row: dict[str, Any], name: str, factor: float, form: str) -> str:
    if row[name] is None:
        return "–"
    mean, half = format(factor * row[name], form), row[f"{name}_half"]
    return mean if half is None or math.isnan(half) else f"{mean} ± {format(factor * half, form.lstrip('+'))}"


def markdown(table: "pl.DataFrame", reference: str = REFERENCE) -> str:
    """The table as Markdown, with 95% intervals; gains that leave out zero are bold."""
    headings = [
        "algorithm",
        *(measure.title for measure in MEASURES),
        f"over {reference.replace('_', ' ')}, points",
        "seeds",
    ]
    lines = [f"| {' | '.join(headings)} |", f"| --- |{' ---: |' * (len(headings) - 1)}"]
    for row in table.iter_rows(named=True):
        cells = [_cell(row, measure.metric, measure.factor, f".{measure.digits}f") for measure in MEASURES]
        gained = "–" if row["run"] == reference else _cell(row, "gain", 100, "+.1f")
        cells = [row["run"].replace("_", " "), *cells, f"**{gained}**" if row["told_apart"] else gained]
        lines.append(f"| {' | '.join([*cells, str(row['seeds'])])} |")
    return "\n".join(lines)


def picture(table: "pl.DataFrame", reference: str = REFERENCE) -> str:
    """A panel a measure, a row an algorithm, means with 95% intervals, as SVG text; ``reference`` is grey."""
    from selftrain.report.drawing import BLUE, GREY, ORANGE, as_svg, panels_figure

    figure, panels = panels_figure(len(MEASURES), height=0.6 + 0.24 * len(table), width=11.0, columns=len(MEASURES))
    places = range(len(table), 0, -1)
    for panel, (axes, measure) in enumerate(zip(panels, MEASURES, strict=True)):
        shown = table[measure.metric].to_list()
        known = [value for value in shown if value is not None]
        best = (max if measure.higher_is_better else min)(known) if known else None
        for place, value, half, name in zip(places, shown, table[f"{measure.metric}_half"], table["run"], strict=True):
            if value is None:
                continue
            colour = ORANGE if value == best else GREY if name in (reference, "teacher") else BLUE
            spread = None if half is None or math.isnan(half) else measure.factor * half
            axes.errorbar(measure.factor * value, place, xerr=spread, fmt="o", color=colour, capsize=2, markersize=4)
        axes.set_title(measure.title, fontsize=10)
        axes.set_yticks(list(places), [name.replace("_", " ") for name in table["run"]] if panel == 0 else [])
        axes.grid(axis="y", linewidth=0.3)
    return as_svg(figure)


def write_comparison(out: Path, reference: str = REFERENCE) -> str:
    """Write ``out/choosing.md``, and a picture and a table of each condition that MLflow has; return the page's text.

    Gains are over the run ``reference``. Raises UserError if MLflow has none of the base condition's runs, or not that.
    """
    out.mkdir(parents=True, exist_ok=True)
    sections = []
    for name, condition in CONDITIONS.items():
        runs = choosing_runs(name)
        if runs.is_empty():
            if name == "base":
                raise UserError(f"MLflow has no runs of '{experiment_of(name)}'; run `make choosing`")
            sections.append(f"## {condition.title}\n\nNot run yet: `make choosing`.")
            continue
        evaluated = runs.drop_nulls(MEASURES[0].metric)
        if evaluated.is_empty():
            sections.append(f"## {condition.title}\n\nNot evaluated yet: {len(runs)} trained runs.")
            continue
        names = evaluated["run"].unique().sort().to_list()
        if name == "base" and reference not in names:
            raise UserError(
                f"'{experiment_of(name)}' has no evaluated run '{reference}'; {did_you_mean(reference, names)}"
            )
        table = compared(evaluated, reference)
        table.write_csv(out / f"{name}.csv")
        (out / f"{name}.svg").write_text(picture(table, reference), encoding="utf-8")
        section = f"## {condition.title}\n\n{markdown(table, reference)}\n\n![{condition.title}]({name}.svg)"
        if unfinished := len(runs) - len(evaluated):
            section += f"\n\nLeft out: {unfinished} runs that are trained and not evaluated yet."
        sections.append(section)
    page = "\n\n".join(sections) + "\n"
    (out / "choosing.md").write_text(page, encoding="utf-8")
    return page
