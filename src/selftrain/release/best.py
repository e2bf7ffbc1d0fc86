"""The stage ``best``: the best run's model folder under a name that does not change, with its card."""

import shutil
from collections.abc import Collection
from pathlib import Path

from selftrain.plumbing.files import atomic_folder, write_json
from selftrain.release.card import write_card
from selftrain.report.rounds import best_run, stop_lines
from selftrain.report.runs import evaluated_model, load_runs


def write_best(
    evaluation: Path,
    names: Collection[str],
    models: Path,
    corpus: Path,
    out: Path,
    robustness: Path | None = None,
) -> None:
    """Copy the model that is best on validation to ``out``, with ``README.md``, its card, and ``best.json``: why it.

    Raises UserError if the model there is not the one that was evaluated.
    """
    runs = load_runs(evaluation, names)
    best = best_run(runs)
    folder = evaluated_model(models, best)
    why = {
        "run": best.name,
        "validation_accuracy": {run.name: run.metrics["validation_accuracy"] for run in runs},
        "temperature": best.metrics["temperature"],
        "stop_rule": stop_lines(runs),
    }
    with atomic_folder(out) as staged:
        shutil.copytree(folder, staged)
        write_json(staged / "best.json", why)
        write_card(staged / "README.md", evaluation.name, runs, best, corpus, robustness)
    print(f"{out}: {best.name}, {best.metrics['validation_accuracy']:.1%} on validation")
