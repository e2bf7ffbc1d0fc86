"""The stage ``report``: the page, and each run's figures and charts for MLflow."""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from selftrain.history.compare import compare
from selftrain.history.lineage import recorded
from selftrain.plumbing.errors import UserError
from selftrain.plumbing.files import read_json, write_json
from selftrain.report import charts
from selftrain.report.copies_section import copies_section
from selftrain.report.diff_page import DiffSection, diff_section
from selftrain.report.label_quality import QualitySection, precision_chart, quality_section
from selftrain.report.mlflow_figures import hand_to_mlflow
from selftrain.report.page import render
from selftrain.report.pictures import picture_grids
from selftrain.report.review_section import review_section
from selftrain.report.rounds import best_run, stop_lines, verdicts
from selftrain.report.runs import EvaluatedRun, load_runs
from selftrain.report.summary import HEADINGS, lost_classes, table_row
from selftrain.tables.parquet import read_frame
from selftrain.tables.selection import selection_digest

LARGEST = 10_000_000
"""Bytes of the page."""
WITH_PICTURES = (5, 2, 1, 0)
"""Rounds that have pictures on the page, the last ones: as many as fit."""
EXAMPLES = 12
"""Pictures of each change from round to round."""


@dataclass(frozen=True)
class Sources:
    """What the report is made from. The tables that are no dependency of the stage are known by the evaluations."""

    evaluation: Path
    corpus: Path
    selections: Path
    review: Path


def build_report(sources: Sources, names: Collection[str], out: Path) -> None:
    """Write ``out/index.html``, which needs no other file, and ``out/runs.json``."""
    runs = load_runs(sources.evaluation, names)
    rounds = [run for run in runs if run.is_round]
    best = best_run(runs)
    quality = {run.name: quality_section(run) for run in rounds}
    out.mkdir(parents=True, exist_ok=True)
    for pictured in WITH_PICTURES:
        page = _page(sources, runs, rounds, best, quality, pictured)
        if len(page.encode()) <= LARGEST:
            break
        print(f"{out / 'index.html'}: too large with pictures of {pictured} rounds; it gets fewer")
    (out / "index.html").write_text(page, encoding="utf-8")
    write_json(out / "runs.json", {run.name: run.metrics.as_dict() for run in runs})
    for run in runs:
        run_charts = make_charts([run], [run] if run.is_round else [], run)
        if run.is_round:
            run_charts["precision_by_class"] = quality[run.name].chart
        hand_to_mlflow(run, run_charts)


def make_charts(runs: list[EvaluatedRun], rounds: list[EvaluatedRun], best: EvaluatedRun) -> dict[str, str]:
    """The report's charts by name, as SVG text; those of pseudo-labels only if there are rounds."""
    made = {
        "accuracy": charts.accuracy_chart(runs),
        "calibration": charts.reliability_chart(runs),
        "confusion": charts.confusion_chart(best),
    }
    if rounds:
        made["precision"] = precision_chart(rounds)
        made["confidence"] = charts.confidence_chart(rounds)
        made["thresholds"] = charts.threshold_chart(rounds)
        made["balance"] = charts.balance_chart(rounds)
    return made


def _page(
    sources: Sources,
    runs: list[EvaluatedRun],
    rounds: list[EvaluatedRun],
    best: EvaluatedRun,
    quality: dict[str, QualitySection],
    pictured: int,
) -> str:

    classes, unlabeled = best.record["classes"], sources.corpus / "unlabeled"
    pictures = {}
    for run in rounds[len(rounds) - min(pictured, len(rounds)) :]:
        examples = read_frame(run.folder / "details" / "examples.parquet")
        pictures[run.name] = picture_grids(examples, unlabeled, classes)
    abouts = {run.name: run.record for run in runs}
    context: dict[str, Any] = {
        "title": sources.evaluation.name.replace("_", " ").capitalize(),
        "classes": classes,
        "corpus": read_json(sources.corpus / "summary.json", "dvc repro ingest"),
        "runs": runs,
        "rounds": rounds,
        "best": best.name,
        "headings": HEADINGS,
        "rows": {run.name: table_row(run) for run in runs},
        "verdicts": verdicts(runs),
        "stop_lines": stop_lines(runs),
        "lost_classes": [line for run in rounds if (line := lost_classes(run))],
        "decisions": _decisions_made(rounds),
        "charts": make_charts(runs, rounds, best),
        "pictures": pictures,
        "truth": any("pseudo_label_accuracy" in run.metrics for run in rounds),
        "quality": list(quality.values()),
        "review": review_section(sources.review, [run.name for run in rounds], unlabeled, classes, 24)
        if rounds
        else None,
        "copies": copies_section(sources.corpus),
        "diffs": _diffs(sources, rounds, pictured),
        "lineage": recorded(best.record, abouts, best.name),
    }
    return render("template.html", **context)


def _diffs(sources: Sources, rounds: list[EvaluatedRun], pictured: int) -> list[DiffSection]:
    """What changed from each round to the next of its chain; the last ``pictured`` with pictures."""
    names = {run.name for run in rounds}
    for run in rounds:
        if selection_digest(sources.selections / run.name) != run.record["tables"]["selection"]:
            raise UserError(f"{sources.selections / run.name}: not what {run.folder} evaluated; run `dvc repro`")
    pairs = [(str(run.teacher), run.name) for run in rounds if run.teacher in names]
    sections = []
    for number, (before, after) in enumerate(pairs):
        examples = EXAMPLES if number >= len(pairs) - pictured else 0
        compared = compare(sources.selections, before, after, None, examples)
        sections.append(diff_section(compared, sources.corpus / "unlabeled"))
    return sections


def _decisions_made(rounds: list[EvaluatedRun]) -> list[str]:
    """Decisions that were taken at all."""
    return [*charts.decision_colours(name for run in rounds for name, n in run.metrics["decisions"].items() if n)]
