"""The robustness page: tables and curves of every run put through the suites."""

from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np

from selftrain.evaluation.robustness.figures import ALEXNET, robustness_figures, scalars
from selftrain.plumbing.files import write_json
from selftrain.report.charts import attack_chart, error_chart
from selftrain.report.mlflow_figures import log_figures
from selftrain.report.page import render
from selftrain.tables.records import TestedRecord

REFERENCES = {ALEXNET: "AlexNet's published errors on ImageNet-C and ImageNet-P"}


def write_robustness(tables: Path, names: Collection[str] | None, reference: str, out: Path) -> None:
    """Write ``out/metrics.json`` and ``out/details/index.html``, print the table, and hand the figures to MLflow."""
    figures = robustness_figures(tables, names, reference)
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / "metrics.json", figures)
    page = render(
        "robustness.html",
        runs=figures,
        reference=REFERENCES.get(reference, f"the errors of {reference}"),
        corruptions=_names(figures, "corruption_errors"),
        perturbations=_names(figures, "flip_probabilities"),
        folders=sorted({name for of_run in figures.values() for name in of_run["folders"]}),
        others=_other_conditions(figures),
        charts={
            "attacks": attack_chart(figures) if _names(figures, "fgsm") or _names(figures, "pgd") else None,
            "corruptions": error_chart(figures) if _names(figures, "corruption_errors") else None,
        },
    )
    (out / "details").mkdir(exist_ok=True)
    (out / "details" / "index.html").write_text(page, encoding="utf-8")
    tested = {name: TestedRecord.read(tables / name / "run.json") for name in figures}
    of_runs = {name: of_run | {"weights": tested[name].weights} for name, of_run in figures.items()}
    write_json(out / "details" / "figures.json", of_runs)
    for name, of_run in figures.items():
        log_figures(
            name, tested[name].mlflow_run_id, {f"robustness/{key}": value for key, value in scalars(of_run).items()}
        )
    _print(figures, reference)


def _names(figures: dict[str, dict[str, Any]], suite: str) -> list[str]:
    return list(dict.fromkeys(name for of_run in figures.values() for name in of_run.get(suite, {})))


def _other_conditions(figures: dict[str, dict[str, Any]]) -> list[tuple[str, str]]:
    """(suite, condition) of suites that have no section of their own."""
    suites = [of_run.get("other_suites", {}) for of_run in figures.values()]
    return sorted({(suite, condition) for of_run in suites for suite, found in of_run.items() for condition in found})


def _print(figures: dict[str, dict[str, Any]], reference: str) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"robustness; mCE and mFR relative to {reference}, %")
    columns = ("mCE", "corruption error", "mFR", "flip probability", "FGSM ε=4", "PGD ε=4", "RandAugment")
    for place, heading in enumerate(("run", *columns)):
        table.add_column(heading, justify="left" if place == 0 else "right", no_wrap=True)
    for name, of_run in figures.items():
        values = [of_run.get(key) for key in ("mce", "mean_corruption_error", "mfr", "mean_flip_probability")]
        values += [of_run.get(attack, {}).get("4") for attack in ("fgsm", "pgd")]
        values.append(of_run.get("randaugment", {}).get("test_accuracy"))
        table.add_row(name, *("–" if value is None or np.isnan(value) else f"{100 * value:.1f}" for value in values))
    Console(width=120).print(table)
