"""The result of a training: a timm model folder with ``run.json``, whole or not at all."""

import shutil
from pathlib import Path
from typing import Any

from torch import nn

from selftrain.learning.closed_form import FittedHead
from selftrain.networks.export import export_model
from selftrain.params.train import TrainConfig
from selftrain.plumbing.files import atomic_folder, sha256_of
from selftrain.plumbing.git import git_commit
from selftrain.plumbing.hardware import peak_memory
from selftrain.tables.records import RunRecord
from selftrain.training.loop import Loop
from selftrain.training.run import Training


class EndedPhase:
    """What is remembered of a phase when its network and images are gone."""

    def __init__(self, name: str, loop: Loop, head: FittedHead | None, temperature: float) -> None:
        assert loop.best_score is not None
        self.name, self.temperature = name, temperature
        self.steps = loop.step
        self.seconds = loop.seconds
        self.peak_memory = peak_memory(loop.hardware.device)
        needs = loop.algorithm.needs(loop.algorithm.config)
        self.learns_from_table = any(needs.reads_table(source) for source in needs.views)
        self.validation_accuracy = loop.best_score.accuracy
        self.parameters = sum(parameter.numel() for parameter in loop.algorithm.student.parameters())
        self.described = {
            "name": name,
            "steps": loop.step,
            "planned_steps": loop.total_steps,
            "best_step": loop.best_step,
            "validation_accuracy": loop.best_score.accuracy,
            "seconds": round(loop.seconds, 1),
        }
        if head is not None:
            self.described |= {
                "probe_strength": head.strength,
                "probe_temperature": head.temperature,
                "probe_held_out_accuracy": head.held_out_accuracy,
            }


def write_weights(model: nn.Module, config: TrainConfig, classes: list[str], folder: Path) -> None:
    """Write a phase's network as a timm model folder."""
    with atomic_folder(folder) as staged:
        export_model(
            model,
            staged,
            classes=classes,
            image_size=config.image_size,
            crop_fraction=config.crop_fraction,
            options=config.model_options,
        )


def export(
    training: Training, results: Path, phases: list[EndedPhase], data: dict[str, str], mlflow_run_id: str
) -> None:
    """Write the run's model folder: the last phase's weights, and what they were made from.

    ``results`` holds each phase's ``<name>/result``. Those of earlier phases go to ``phases/<name>``: the paper's
    robustness tests, for one, take the network from before the resolution fix.
    """
    teacher = training.teacher_run()
    values: dict[str, Any] = {
        "run": training.name,
        "pipeline": training.pipeline,
        "mlflow_run_id": mlflow_run_id,
        "algorithm": training.config.algorithm.name,
        "model": training.config.model,
        "parameters": phases[-1].parameters,
        "teacher": teacher and teacher.run,
        "teacher_parameters": teacher and teacher.parameters,
        "teacher_mlflow_run_id": teacher and teacher.mlflow_run_id,
        "teacher_weights": training.teacher_weights(),
        "git_commit": git_commit(),
        "seed": training.seed,
        "data": data,
        "paths": training.paths(),
        "train": training.config.model_dump(mode="json"),
        "steps": sum(phase.steps for phase in phases),
        "phases": [phase.described for phase in phases],
        "validation_accuracy": phases[-1].validation_accuracy,
        "temperature": phases[-1].temperature,
        "learns_from_table": any(phase.learns_from_table for phase in phases),
        "peak_memory_mib": round(max(phase.peak_memory for phase in phases) / 2**20),
        "train_seconds": round(sum(phase.seconds for phase in phases), 1),
    }
    with atomic_folder(training.out) as staged:
        shutil.copytree(results / phases[-1].name / "result", staged)
        record = RunRecord(**values, weights=sha256_of(staged / "model.safetensors"))
        record.write(staged / "run.json")
        for earlier in phases[:-1]:
            shutil.copytree(results / earlier.name / "result", staged / "phases" / earlier.name)
            record.write(staged / "phases" / earlier.name / "run.json")
