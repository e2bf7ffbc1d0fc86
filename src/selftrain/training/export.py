"""The result of a training: a timm model folder with ``run.json``, whole or not at all."""

import shutil
from typing import Any

from selftrain.files import TEMPORARY_PREFIX, write_json
from selftrain.training.loop import Loop
from selftrain.training.models import export_model
from selftrain.training.provenance import git_commit
from selftrain.training.run import Run


def export(loop: Loop, run: Run, classes: list[str], data: dict[str, str], mlflow_run_id: str) -> None:
    """Write the best weights on validation, and what they were made from."""
    assert loop.best_score is not None
    model = loop.evaluated_model()
    model.load_state_dict(loop.best_weights)
    config, teacher = run.config, run.teacher_run()
    about: dict[str, Any] = {
        "run": run.name,
        "pipeline": run.pipeline,
        "mlflow_run_id": mlflow_run_id,
        "algorithm": config.algorithm.name,
        "model": config.model,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "teacher": teacher.get("run"),
        "teacher_mlflow_run_id": teacher.get("mlflow_run_id"),
        "git_commit": git_commit(),
        "seed": run.seed,
        "data": data,
        "steps": loop.total_steps,
        "best_step": loop.best_step,
        "validation_accuracy": loop.best_score.accuracy,
        "train_seconds": round(loop.seconds, 1),
    }
    run.out.parent.mkdir(parents=True, exist_ok=True)
    staged = run.out.with_name(f"{TEMPORARY_PREFIX}{run.out.name}")
    shutil.rmtree(staged, ignore_errors=True)
    export_model(model, staged, classes=classes, image_size=config.image_size, crop_fraction=config.crop_fraction)
    write_json(staged / "run.json", about)
    shutil.rmtree(run.out, ignore_errors=True)
    staged.rename(run.out)
