"""A policy, a suite and an algorithm of somebody's own: one file each, used by name from a copy of the package."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import write_images
from tests.repository import ROOT

POLICY = '''"""By class: the rare class is believed from a lower confidence on."""

from selftrain.selection.policy import Policy


class ByClass(Policy):
    reasons = ("unsure_of_class",)

    def decide(self, rows):
        import polars as pl

        needed = pl.when(pl.col("label") == 0).then(0.2).otherwise(self.config.threshold)
        return rows.select(reason=pl.when(pl.col("confidence") <= needed).then(pl.lit("unsure_of_class"))).to_series()
'''

SUITE = '''"""The image upside down."""

from functools import partial

from selftrain.evaluation.robustness.testbed import Condition


def upside_down(images, keys):
    return images[:, ::-1].copy()


def conditions(testbed):
    yield Condition("upside_down", "v1", partial(testbed.under, upside_down, 1.0))
'''

ALGORITHM = '''"""The labels of the selection, each with the weight 1."""

from torch.nn import functional

from selftrain.learning.algorithm import Algorithm


class HardLabels(Algorithm):
    """One network on labeled images and on a teacher's hard labels."""

    views = {"labeled": ("image", "label"), "unlabeled": ("image", "log_probs")}

    def loss(self, batch, step, runtime):
        labeled, unlabeled = batch["labeled"], batch["unlabeled"]
        logits = runtime.logits(self.student, labeled=labeled["image"], unlabeled=unlabeled["image"])
        labels = unlabeled["log_probs"].argmax(dim=1)
        return {
            "loss": functional.cross_entropy(logits["labeled"], labeled["label"])
            + functional.cross_entropy(logits["unlabeled"], labels)
        }
'''

PROGRAM = """
import json
from pathlib import Path

import polars as pl

import selftrain as st
from selftrain.evaluation.robustness.figures import robustness_figures
from selftrain.evaluation.robustness.run import run_suites
from selftrain.params.robustness import RobustnessConfig
from selftrain.plumbing.hardware import HardwareConfig
from selftrain.report.robustness_page import write_robustness

photos = Path("photos")
rows = pl.DataFrame({"key": [1, 2, 3, 4], "label": [0, 0, 1, 1], "confidence": [0.1, 0.3, 0.3, 0.9]})
decisions = st.select(rows, policy="by_class", threshold=0.5, per_class="all")["decision"].to_list()

small = {"model": "test_resnet", "image_size": 32, "steps": 4, "batch_size": 4, "hardware": {"device": "cpu", "threads": 1}}
student = st.train(
    photos / "labeled", pool=photos / "pool", validation=photos / "validation", algorithm="hard_labels",
    select={"policy": "by_class", "threshold": 0.0}, out="student", **small,
)
algorithm = json.loads((student.folder / "run.json").read_text())["algorithm"]

from selftrain.corpus.ingest import ingest
from selftrain.params.ingest import IngestConfig

splits = {name: {"images": name} for name in ("labeled", "validation", "test")} | {"unlabeled": {"images": "pool"}}
ingest(IngestConfig.model_validate({"root": "photos", **splits}), 0, Path("corpus"))
config = RobustnessConfig(suites=("upside_down",), reference="student")
run_suites(Path("student"), Path("corpus"), config, 0, HardwareConfig(device="cpu", workers=0), Path("tables/student"))
suites = robustness_figures(Path("tables"), None, "student")["student"]["other_suites"]
write_robustness(Path("tables"), None, "student", Path("found"))
on_page = "upside down" in Path("found/details/index.html").read_text()
print(json.dumps([decisions, algorithm, [*suites["upside_down"]], on_page]))
"""


@pytest.mark.slow
def test_a_policy_a_suite_and_an_algorithm_are_one_file_each(tmp_path: Path) -> None:
    package = tmp_path / "src" / "selftrain"
    shutil.copytree(ROOT / "src" / "selftrain", package, ignore=shutil.ignore_patterns("__pycache__"))
    (package / "selection" / "policies" / "by_class.py").write_text(POLICY)
    (package / "evaluation" / "robustness" / "suites" / "upside_down.py").write_text(SUITE)
    (package / "algorithms" / "hard_labels.py").write_text(ALGORITHM)
    for split, seed in (("labeled", 1), ("validation", 2), ("test", 3)):
        for offset, name in enumerate(("cat", "dog")):
            write_images(tmp_path / "photos" / split / name, 4, seed * 10 + offset)
    write_images(tmp_path / "photos" / "pool", 9, 50)
    environment = os.environ | {
        "PYTHONPATH": str(tmp_path / "src"),
        "MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path}/m.db",
    }
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    decisions, algorithm, conditions, on_page = json.loads(done.stdout.strip().splitlines()[-1])
    assert decisions == ["unsure_of_class", "kept", "unsure_of_class", "kept"]
    assert algorithm == "hard_labels"
    assert conditions == ["upside_down"]
    assert on_page


NEEDS_NOT = ("mlflow", "fiftyone", "dvc", "cleanlab", "matplotlib", "jinja2", "typer", "onnx", "onnxruntime", "sklearn")

TRAINING = f"""
import sys

for name in {NEEDS_NOT}:
    sys.modules[name] = None  # importing it is an ImportError

import selftrain as st

model = st.train(
    "photos/labeled", pool="photos/pool", algorithm="noisy_student", model="test_resnet", image_size=32, steps=2,
    batch_size=4, select={{"threshold": 0.0}}, hardware={{"device": "cpu", "threads": 1}}, out="student",
)
print(model.classes)
"""


def test_training_needs_no_tracking_app_or_pipeline(photos: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", TRAINING], cwd=photos.parent, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "cat" in done.stdout
