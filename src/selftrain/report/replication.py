"""The replication's Tables 2 and 3 for whatever data it was given, its own numbers beside them.

Jiang, "Semi-supervised learning and robustness on a smaller scale": accuracy on the target task, and under RandAugment,
of a teacher, a student and a noisy student.
"""

from collections.abc import Collection
from pathlib import Path
from typing import Any

from selftrain.evaluation.robustness.figures import robustness_figures
from selftrain.plumbing.errors import UserError
from selftrain.plumbing.files import atomic_path
from selftrain.report.runs import EvaluatedRun, load_runs

REFERENCE = {"teacher": (0.688, 0.640, 0.520), "student": (0.813, 0.784, 0.632), "noisy_student": (None, 0.770, 0.660)}
"""The report's validation and test accuracy (Table 2) and test accuracy under RandAugment (Table 3), on CUB-200."""
LEAKY = "_leaky"
"""Ending of the runs whose labeling teacher may have seen the student's test images, as the report's may."""


def write_replication_tables(evaluation: Path, tables: Path, names: Collection[str], out: Path) -> None:
    """Write both tables as Markdown and print them. Raises UserError if a run's RandAugment passes are missing."""
    runs = {run.name: run for run in load_runs(evaluation, names)}
    if "teacher" not in runs:
        raise UserError(f"{evaluation}: the tables need a run 'teacher', trained on the labeled split alone")
    passes = robustness_figures(tables, names, "teacher")
    shown = [name + ending for ending in ("", LEAKY) for name in REFERENCE if name + ending in runs]
    # The labeling teachers are not in the report's tables; any other round is worth a row.
    shown += [name for name, run in runs.items() if name not in shown and run.is_round]
    for name in shown:
        if "randaugment" not in passes.get(name, {}):
            raise UserError(f"{tables / name}: no RandAugment passes; have `randaugment` in `robustness.suites`")
    text = "\n".join([*_accuracy_table(shown, runs, passes), "", *_randaugment_table(shown, passes), "", *_notes(runs)])
    with atomic_path(out) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")
    print(text)


def _accuracy_table(shown: list[str], runs: dict[str, EvaluatedRun], passes: dict[str, Any]) -> list[str]:
    lines = [
        "Table 2: accuracy on the target task, %. Test: the clean image with its 95% interval; seeded crop-and-flip",
        "passes, as the report tested, beside it. The last two columns are the report's, on CUB-200 with ResNet-50.",
        "",
        "| run | labeling teacher | validation | test | test, passes | CUB-200 validation | CUB-200 test |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for name in shown:
        figures, reference = runs[name].metrics, _reference(name)
        interval = f"{_percent(figures['test_accuracy_low'])}–{_percent(figures['test_accuracy_high'])}"
        lines.append(
            f"| {name} | {runs[name].teacher or '–'} | {_percent(figures['validation_accuracy'])} "
            f"| {_percent(figures['test_accuracy'])} ({interval}) | {_passes(passes[name]['crop_and_flip'], 'test')} "
            f"| {_percent(reference[0])} | {_percent(reference[1])} |"
        )
    return lines


def _randaugment_table(shown: list[str], passes: dict[str, Any]) -> list[str]:
    count = passes[shown[0]]["randaugment"]["test_passes"]
    lines = [
        f"Table 3: accuracy under RandAugment, %, mean of {count} seeded passes ± their standard deviation.",
        "",
        "| run | validation | test | CUB-200 test |",
        "| --- | ---: | ---: | ---: |",
    ]
    for name in shown:
        of_view = passes[name]["randaugment"]
        reference = _percent(_reference(name)[2])
        lines.append(f"| {name} | {_passes(of_view, 'validation')} | {_passes(of_view, 'test')} | {reference} |")
    return lines


def _notes(runs: dict[str, EvaluatedRun]) -> list[str]:
    notes = []
    for name, run in runs.items():
        resplit = (run.record.get("train") or {}).get("resplit")
        if resplit and "test" in resplit["splits"]:
            notes.append(
                f"{name} was trained on its own cut of {', '.join(resplit['splits'])}: it saw test images, so the test "
                "accuracy of its students is too high, and its own means nothing."
            )
    return notes


def _reference(name: str) -> tuple[float | None, float | None, float | None]:
    return REFERENCE.get(name.removesuffix(LEAKY), (None, None, None))


def _percent(share: float | None) -> str:
    return "N/A" if share is None else f"{100 * share:.1f}"


def _passes(of_view: dict[str, Any], split: str) -> str:
    deviation = of_view[f"{split}_deviation"]
    mean = _percent(of_view[f"{split}_accuracy"])
    return mean if deviation is None else f"{mean} ± {_percent(deviation)}"
