"""Whole distillations, in real processes: from a teacher's table of every split, and beside the teacher itself."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from selftrain.history.lineage import trace
from selftrain.tables.predictions import iter_predictions
from tests.repository import in_process
from tests.training.conftest import TINY
from tests.training.project import selftrain, write_params, write_project

SMALL = {"model_options": {"channels": [8, 16, 16, 32]}}
STUDENTS: dict[str, dict[str, Any]] = {
    "small": SMALL | {"algorithm": {"name": "distillation", "alpha_end": 0.5, "alpha_steps": 20}, "unlabeled_ratio": 2},
    "on_labeled": SMALL | {"algorithm": {"name": "distillation", "distill_on": "labeled"}},
    "by_features": {
        "model": "test_efficientnet",
        "algorithm": {"name": "feature_distillation", "features": 2},
        "networks": {"projections": {"learning_rate": 0.01}},
        "unlabeled_ratio": 2,
    },
}


@pytest.mark.slow
def test_distilled_students_are_small_and_load_in_plain_timm(digits_corpus: Path, tmp_path: Path) -> None:
    folder = tmp_path / "p"
    write_project(folder, digits_corpus)
    params = yaml.safe_load((folder / "params.yaml").read_text())
    params["train"] = TINY | {"steps": 20, "validate_every": 10}
    params["select"] = {"threshold": 0}
    params["rounds"] = {name: {"teacher": "teacher", "train": train} for name, train in STUDENTS.items()}
    write_params(folder, params)
    in_process(folder, ("train", "teacher"), ("predict", "teacher"), *(("select", name) for name in STUDENTS))
    labeled = [part for _, part in iter_predictions(folder / "predictions" / "noisy_student" / "teacher" / "labeled")]
    assert sum(len(part.keys) for part in labeled) == 30
    said = in_process(folder, *(("train", name) for name in STUDENTS))
    assert "is smaller than its teacher" not in said, "that is what it is for"
    program = (
        "import json, timm, torch\n"
        "for name in ('small', 'on_labeled', 'by_features'):\n"
        "    m = timm.create_model(f'local-dir:models/noisy_student/{name}', pretrained=True).eval()\n"
        "    print(json.dumps([sum(p.numel() for p in m.parameters()), list(m(torch.zeros(2, 3, 32, 32)).shape)]))\n"
    )
    shown = subprocess.run(
        [sys.executable, "-c", program], cwd=folder, env={"PATH": ""}, capture_output=True, text=True, check=True
    )
    sizes = [json.loads(line) for line in shown.stdout.splitlines()]
    record = {
        name: json.loads((folder / "models" / "noisy_student" / name / "run.json").read_text()) for name in STUDENTS
    }
    assert [size for size, _ in sizes] == [record[name]["parameters"] for name in STUDENTS] == [49482, 49482, 101766]
    assert all(shape == [2, 10] for _, shape in sizes)
    assert record["small"]["teacher_parameters"] / 4 > 49482
    assert [record[name]["learns_from_table"] for name in STUDENTS] == [True, True, False]
    assert ["labeled_predictions" in record[name]["data"] for name in STUDENTS] == [True, True, False]
    tables = [
        link
        for link in trace(folder / "models" / "noisy_student" / "on_labeled").all()
        if link.kind == "labeled_predictions"
    ]
    assert [(link.path, link.state) for link in tables] == [("predictions/noisy_student/teacher/labeled", "missing")], (
        "seen from here"
    )
    # Without the teacher's table of labeled images there is nothing to distill on there.
    for part in (folder / "predictions" / "noisy_student" / "teacher" / "labeled").glob("*.parquet"):
        part.unlink()
    failed = selftrain(folder, "train", "on_labeled")
    assert failed.returncode == 1
    assert "predictions/noisy_student/teacher/labeled: no predictions there" in failed.stderr
    assert "Traceback" not in failed.stderr
