"""The table that a run ends with."""

from collections.abc import Collection, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from selftrain.report.rounds import best_run, stop_lines
from selftrain.report.runs import EvaluatedRun, chain_saw, load_runs

if TYPE_CHECKING:
    from rich.table import Table

WIDE = 0.2
"""Width of the validation accuracy's interval from which on the choice of the best run is mostly chance."""
HEADINGS = ("run", "model", "test accuracy", "95% interval", "coverage", "pseudo-label accuracy", "time")


def table_row(run: EvaluatedRun) -> tuple[str, ...]:
    """One run as text, in the order of ``HEADINGS``; what does not apply is a dash."""
    figures = run.metrics
    return (
        run.name,
        str(run.record["model"]),
        f"{figures['test_accuracy']:.1%}",
        f"{figures['test_accuracy_low']:.1%} – {figures['test_accuracy_high']:.1%}",
        f"{figures['coverage']:.1%}" if "coverage" in figures else "–",
        f"{figures['pseudo_label_accuracy']:.1%}" if "pseudo_label_accuracy" in figures else "–",
        f"{figures['train_seconds']:.0f} s",
    )


def lost_classes(run: EvaluatedRun) -> str:
    """A line on the classes that a round has no pseudo-label of; empty if there is none."""
    lost = run.record.get("without_pseudo_labels") or []
    if not lost:
        return ""
    named = ", ".join(lost[:5]) + (f" and {len(lost) - 5} more" if len(lost) > 5 else "")
    return (
        f"{run.name}: no pseudo-label of {named}; its students learn of them from labeled images alone. Label "
        "more images of them, or let the round take more (a lower `select.threshold` or `select.precision`, whichever "
        "its policy reads)"
    )


def runs_table(title: str, headings: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> "Table":
    """A row a run for the terminal; its name and model first."""
    from rich.table import Table

    table = Table(title=title)
    for place, heading in enumerate(headings):
        table.add_column(heading, justify="left" if place < 2 else "right", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    return table


def print_summary(evaluation: Path, names: Collection[str], report: Path) -> None:
    """Print the runs' table, and where to look next."""
    from rich.console import Console

    runs = load_runs(evaluation, names)
    console = Console(width=120 if not Console().is_terminal else None, markup=False)
    console.print(runs_table(evaluation.name.replace("_", " "), HEADINGS, map(table_row, runs)))
    for run in runs:
        if line := lost_classes(run):
            console.print(line, style="bold", soft_wrap=True)
    for run in runs:
        if chain_saw(run, "test", runs):
            console.print(f"{run.name}: it or a teacher of its chain saw test images; its test accuracy is too high")
    for line in stop_lines(runs):
        console.print(f"stop rule: {line}", soft_wrap=True)
    best = best_run(runs)
    low, high = (best.metrics[f"validation_accuracy_{end}"] for end in ("low", "high"))
    console.print(
        f"best on validation: {best.name} ({best.metrics['validation_accuracy']:.1%}, {low:.1%} – {high:.1%})"
        + ("; so wide an interval tells little, label more validation images" if high - low > WIDE else ""),
        soft_wrap=True,
    )
    console.print(
        f"report: {report}/index.html    runs compared: selftrain mlflow    pseudo-labels: selftrain browse",
        style="dim",
    )
