"""A folder to run trainings in, as the command line does."""

import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from selftrain.params.select import SelectConfig
from selftrain.plumbing import tracking
from selftrain.selection.select import select
from selftrain.tables.corrections import no_corrections, write_corrections
from selftrain.tables.manifest import iter_manifest
from selftrain.tables.predictions import PredictionPart, write_part
from tests.repository import with_pipeline
from tests.training.conftest import TINY

# The teacher learns, and h with its moving average has to come back from a checkpoint.
TEACHING: dict[str, dict[str, Any]] = {
    "meta_pseudo_labels": {"student_wait_steps": 3, "unlabeled_ramp_steps": 20},
    "reduced_meta_pseudo_labels": {"feedback": "dot_product", "feedback_factor": 100, "hidden": 16},
}


def of_algorithm(name: str) -> dict[str, Any]:
    """Parameters of a training by an algorithm; the student's learning rate is not its teacher's."""
    if name not in TEACHING:
        return {}
    return {"algorithm": {"name": name} | TEACHING[name], "networks": {"teacher": {"learning_rate": 0.002}}}


def write_project(folder: Path, corpus: Path, **train: Any) -> None:
    """A folder to run the command line in: params, the corpus, made-up predictions of a teacher."""
    folder.mkdir()
    tracking._make_database(f"sqlite:///{folder}/mlflow.db")
    (folder / "data").mkdir()
    (folder / "data" / "corpus").symlink_to(corpus)
    student = {"algorithm": {"name": "noisy_student"}, "unlabeled_ratio": 3, "ema_decay": 0.95, **train}
    params = {
        "seed": 0,
        "train": TINY | {"steps": 60, "validate_every": 20},
        "select": {"threshold": 0.2},
        "supervised": {"teacher": {"train": {}}},
        "rounds": {"student": {"teacher": "teacher", "train": student}},
        "hardware": {"checkpoint_seconds": 0.1, "threads": 1, "processes": 1},
    }
    write_params(folder, params)
    write_corrections(folder / "corrections.parquet", no_corrections())
    write_teacher(folder / "models" / "noisy_student" / "teacher")
    rng = np.random.default_rng(0)
    for shard, table in iter_manifest(corpus / "unlabeled", ["key"]):
        log_probs = np.log(rng.dirichlet(np.full(10, 0.2), table.num_rows) + 1e-6).astype(np.float16)
        labels = log_probs.argmax(1)
        confidences = np.exp(log_probs.max(1)).astype(np.float32)
        part = PredictionPart(table["key"].to_numpy(), labels.astype(np.int32), confidences, log_probs)
        write_part(
            folder / "predictions" / "noisy_student" / "teacher" / "unlabeled",
            shard,
            part,
            [str(c) for c in range(10)],
            "x",
        )
    table = folder / "predictions" / "noisy_student" / "teacher" / "unlabeled"
    select(
        SelectConfig.model_validate(params["select"]),
        0,
        table,
        corpus,
        folder / "selections" / "noisy_student" / "student",
    )


def write_teacher(folder: Path) -> None:
    """An untrained model, as a run's folder."""
    from selftrain.networks.export import export_model
    from selftrain.networks.models import create_model
    from selftrain.plumbing.files import write_json

    torch.manual_seed(0)
    model = create_model("test_resnet", 10, 32)
    export_model(model, folder, classes=[str(label) for label in range(10)], image_size=32, crop_fraction=1.0)
    write_json(folder / "run.json", {"run": "teacher", "mlflow_run_id": "0", "parameters": 0})


def write_params(folder: Path, params: dict[str, Any]) -> None:
    (folder / "params.yaml").write_text(yaml.safe_dump(with_pipeline(params)))


def selftrain(folder: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "selftrain", *arguments], cwd=folder, capture_output=True, text=True, check=False
    )


TRAIN_STUDENT = ("train", "student")


def mlflow_rows(folder: Path, query: str) -> list[Any]:
    with sqlite3.connect(folder / "mlflow.db") as connection:
        return connection.execute(query).fetchall()


def newest_step(checkpoints: Path) -> int:
    return max((int(path.stem.removeprefix("step-")) for path in checkpoints.glob("*/*/step-*.safetensors")), default=0)
