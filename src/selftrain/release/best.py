"""The stage ``best``: the best run's model folder under a name that does not change, with its card."""

import shutil
from collections.abc import Collection
from pathlib import Path

from selftrain.plumbing.errors import UserError
from selftrain.plumbing.files import atomic_folder, sha256_of, write_json
from selftrain.release.card import write_card
from selftrain.report.rounds import best_run, stop_lines
from selftrain.report.runs import load_runs


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
    folder = models / best.name
    weights = folder / "model.safetensors"
    if not weights.is_file() or sha256_of(weights) != best.record["weights"]:
        raise UserError(f"{folder}: not the model that {best.folder} evaluated; run `dvc repro`")
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
