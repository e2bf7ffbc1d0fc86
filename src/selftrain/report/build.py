"""The stage ``report``: the page, and each run's figures and charts for MLflow."""

from collections.abc import Collection
from pathlib import Path
from typing import Any

from selftrain.files import read_json, write_json
from selftrain.report import charts
from selftrain.report.mlflow_figures import hand_to_mlflow
from selftrain.report.page import render
from selftrain.report.pictures import picture_grids
from selftrain.report.rounds import best_run, stop_lines, verdicts
from selftrain.report.runs import EvaluatedRun, load_runs
from selftrain.report.summary import HEADINGS, table_row


def build_report(evaluation: Path, names: Collection[str], corpus: Path, out: Path) -> None:
    """Write ``out/index.html``, which needs no other file, and ``out/runs.json``."""
    runs = load_runs(evaluation, names)
    rounds = [run for run in runs if run.is_round]
    best = best_run(runs)
    pages_charts = _charts(runs, rounds, best)
    out.mkdir(parents=True, exist_ok=True)
    (out / "index.html").write_text(_page(evaluation, corpus, runs, rounds, best, pages_charts), encoding="utf-8")
    write_json(out / "runs.json", {run.name: run.metrics for run in runs})
    for run in runs:
        hand_to_mlflow(run, _charts([run], [run] if run.is_round else [], run))


def _charts(runs: list[EvaluatedRun], rounds: list[EvaluatedRun], best: EvaluatedRun) -> dict[str, str]:
    made = {
        "accuracy": charts.accuracy_chart(runs),
        "calibration": charts.reliability_chart(runs),
        "confusion": charts.confusion_chart(best),
    }
    if rounds:
        made["confidence"] = charts.confidence_chart(rounds)
        made["thresholds"] = charts.threshold_chart(rounds)
        made["balance"] = charts.balance_chart(rounds)
    return made


def _page(
    evaluation: Path,
    corpus: Path,
    runs: list[EvaluatedRun],
    rounds: list[EvaluatedRun],
    best: EvaluatedRun,
    made_charts: dict[str, str],
) -> str:
    import polars as pl

    classes = best.about["classes"]
    grids = {}
    for run in rounds:
        examples = pl.read_parquet(run.folder / "details" / "examples.parquet")
        grids[run.name] = picture_grids(examples, corpus / "unlabeled", classes)
    context: dict[str, Any] = {
        "title": evaluation.name.replace("_", " ").capitalize(),
        "classes": classes,
        "corpus": read_json(corpus / "summary.json", "dvc repro ingest"),
        "runs": runs,
        "rounds": rounds,
        "best": best.name,
        "headings": HEADINGS,
        "rows": {run.name: table_row(run) for run in runs},
        "verdicts": verdicts(runs),
        "stop_lines": stop_lines(runs),
        "decisions": _decisions_made(rounds),
        "charts": made_charts,
        "grids": grids,
        "truth": any("pseudo_label_accuracy" in run.metrics for run in rounds),
    }
    return render("template.html", **context)


def _decisions_made(rounds: list[EvaluatedRun]) -> list[str]:
    """Decisions that were taken at all."""
    return [
        decision for decision in charts.DECISION_COLOURS if any(run.metrics["decisions"][decision] for run in rounds)
    ]
