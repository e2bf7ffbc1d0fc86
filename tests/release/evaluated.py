"""The evaluation of a run and its weights, written down."""

import hashlib
import json
from pathlib import Path
from typing import Any


def write_run(evaluation: Path, models: Path, name: str, teacher: str | None, accuracy: float, **metrics: Any) -> None:
    folder = models / name
    folder.mkdir(parents=True)
    folder.joinpath("model.safetensors").write_bytes(name.encode())
    details = evaluation / name / "details"
    details.mkdir(parents=True)
    figures = {
        "test_accuracy": accuracy, "test_accuracy_low": accuracy - 0.03, "test_accuracy_high": accuracy + 0.03,
        "test_top5": 1.0, "test_nll": 0.3, "test_calibration_error": 0.08, "test_calibration_error_scaled": 0.04,
        "validation_accuracy": accuracy + 0.01, "validation_accuracy_low": accuracy - 0.03,
        "validation_accuracy_high": accuracy + 0.04, "validation_nll": 0.3, "validation_calibration_error": 0.07,
        "temperature": 0.8, "train_seconds": 3,
    }  # fmt: skip
    (evaluation / name / "metrics.json").write_text(json.dumps(figures | metrics))
    record = {
        "run": name, "teacher": teacher, "model": "test_resnet", "algorithm": "noisy_student", "parameters": 373658, "seed": 4,
        "classes": ["cat", "dog"], "per_class_accuracy": {"cat": accuracy + 0.08, "dog": accuracy - 0.08},
        "mlflow_run_id": f"id-{name}", "git_commit": "abc", "data": {"labeled": "d1"},
        "weights": hashlib.sha256(name.encode()).hexdigest(),
    }  # fmt: skip
    (details / "run.json").write_text(json.dumps(record))
