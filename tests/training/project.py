"""A folder to run trainings in, as the command line does."""

import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from selftrain.corpus.manifest import iter_manifest
from selftrain.predictions.config import SelectConfig
from selftrain.predictions.select import select
from selftrain.predictions.table import PredictionPart, write_part
from tests.training.conftest import TINY


def write_project(folder: Path, corpus: Path, **train: Any) -> None:
    """A folder to run the command line in: params, the corpus, made-up predictions of a teacher."""
    folder.mkdir()
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
    rng = np.random.default_rng(0)
    for shard, table in iter_manifest(corpus / "unlabeled", ["key"]):
        log_probs = np.log(rng.dirichlet(np.full(10, 0.2), table.num_rows) + 1e-6).astype(np.float16)
        labels = log_probs.argmax(1)
        confidences = np.exp(log_probs.max(1)).astype(np.float32)
        part = PredictionPart(table["key"].to_numpy(), labels.astype(np.int32), confidences, log_probs)
        write_part(folder / "predictions" / "teacher" / "unlabeled", shard, part, [str(c) for c in range(10)], "x")
    table = folder / "predictions" / "teacher" / "unlabeled"
    select(SelectConfig.model_validate(params["select"]), 0, table, corpus, folder / "selections" / "student")


def write_params(folder: Path, params: dict[str, Any]) -> None:
    (folder / "params.yaml").write_text(yaml.safe_dump(params))


def selftrain(folder: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "selftrain", *arguments], cwd=folder, capture_output=True, text=True, check=False
    )


TRAIN_STUDENT = (
    "train", "student", "--out", "models/student", "--selection", "selections/student",
    "--predictions", "predictions/teacher/unlabeled",
)  # fmt: skip


def mlflow_rows(folder: Path, query: str) -> list[Any]:
    with sqlite3.connect(folder / "mlflow.db") as connection:
        return connection.execute(query).fetchall()


def newest_step(checkpoints: Path) -> int:
    return max((int(path.stem.removeprefix("step-")) for path in checkpoints.glob("*/*/step-*.safetensors")), default=0)
