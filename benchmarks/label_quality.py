"""Whether the estimated precision of pseudo-labels is true: against hidden truth, where it is known.

python benchmarks/label_quality.py               # the digits, five seeds, in the clones of `make seeds`
python benchmarks/label_quality.py FOLDER ...    # projects that were reproduced, with known truth
"""

import json
import sys
from pathlib import Path
from typing import Any

import polars as pl
from seeds import CLONES, MAIN, SEEDS, run_seed

from selftrain.evaluation.label_quality import expected_precision, recommend
from selftrain.evaluation.pseudo_labels import tally
from selftrain.tables.held_out import load_held_out

THRESHOLDS = (0.0, 0.3, 0.5, 0.7, 0.8)
TARGET = 0.95


def rounds_of(project: Path) -> list[tuple[str, pl.DataFrame]]:
    """Each round's name and its expected precision."""
    found = []
    for path in sorted((project / "evaluation" / MAIN).glob("*/details/run.json")):
        run: dict[str, Any] = json.loads(path.read_text())
        if run["teacher"]:
            corpus = project / "data" / "corpus"
            validation = load_held_out(project / "predictions" / MAIN / run["teacher"], corpus, "validation")
            counts = tally(project / "selections" / MAIN / run["run"], corpus / "truth.parquet")
            found.append((run["run"], expected_precision(validation, counts, run["classes"])))
    return found


def main() -> None:
    """Print expected against true precision at some thresholds, and at the recommended ones."""
    projects = [Path(name) for name in sys.argv[1:]]
    if not projects:
        for seed in SEEDS:
            run_seed(seed, MAIN)
        projects = [CLONES / f"seed-{seed}" for seed in SEEDS]
    rounds = [one for project in projects for one in rounds_of(project)]
    print("| threshold | expected | true | truth inside the interval |")
    print("| ---: | ---: | ---: | ---: |")
    for threshold in THRESHOLDS:
        rows = [
            table.filter(pl.col("class").is_null() & (pl.col("threshold") == threshold)).row(0, named=True)
            for _, table in rounds
        ]
        rows = [row for row in rows if row["precision"] is not None and row["true_precision"] is not None]
        inside = sum(row["low"] <= row["true_precision"] <= row["high"] for row in rows)
        expected, true = (100 * sum(row[name] for row in rows) / len(rows) for name in ("precision", "true_precision"))
        print(f"| {threshold:g} | {expected:.1f} | {true:.1f} | {inside} of {len(rows)} |")
    advice = [recommend(table, TARGET) for _, table in rounds]
    true_precisions = [100 * one.true_precision for one in advice if one and one.true_precision is not None]
    print(
        f"\nat the threshold recommended for {TARGET:.0%} ({len(true_precisions)} of {len(rounds)} rounds have one): "
        f"{sum(true_precisions) / len(true_precisions):.1f}% right, "
        f"{min(true_precisions):.1f} to {max(true_precisions):.1f}%"
    )


if __name__ == "__main__":
    main()
