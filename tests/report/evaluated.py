"""The evaluation of a run, written down."""

import json
from pathlib import Path
from typing import Any


def write_run(folder: Path, name: str, teacher: str | None, **metrics: Any) -> None:
    (folder / name / "details").mkdir(parents=True)
    figures = {"test_accuracy": 0.9123, "test_accuracy_low": 0.88, "test_accuracy_high": 0.94, "train_seconds": 12.4}
    (folder / name / "metrics.json").write_text(json.dumps(figures | metrics))
    record = {"run": name, "teacher": teacher, "model": "m", "mlflow_run_id": f"id-{name}", "classes": ["a", "b"]}
    (folder / name / "details" / "run.json").write_text(json.dumps(record))
