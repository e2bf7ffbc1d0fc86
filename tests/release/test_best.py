"""The best model's folder and its card."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub import ModelCard

from selftrain.plumbing.errors import UserError
from selftrain.release.best import write_best
from tests.release.evaluated import write_run

NAMES = ("teacher", "student1", "student2")


@pytest.fixture
def project(tmp_path: Path) -> Path:
    evaluation, models = tmp_path / "noisy_student", tmp_path / "models"
    kept = {
        "coverage": 0.6,
        "kept": 1200,
        "expected_precision": 0.97,
        "pseudo_label_accuracy": 0.955,
        "out_of_domain_kept": 7,
    }
    gain = {"validation_gain": 0.0, "validation_gain_low": -0.01, "validation_gain_high": 0.02}
    against = {"gained_on_teacher": 5, "lost_to_teacher": 4, "mcnemar_p": 0.9}
    write_run(evaluation, models, "teacher", None, 0.80)
    write_run(evaluation, models, "student1", "teacher", 0.90, **kept, **against, **gain)
    write_run(evaluation, models, "student2", "student1", 0.89, **kept, **against, **gain)
    summary: dict[str, Any] = {split: {"images": 500} for split in ("labeled", "validation", "test")}
    summary["unlabeled"] = {"images": 2000, "leaks": 3, "near_leaks": 1}
    (tmp_path / "corpus").mkdir()
    (tmp_path / "corpus" / "summary.json").write_text(json.dumps(summary))
    return tmp_path


def card_of(project: Path, robustness: Path | None = None) -> str:
    write_best(project / "noisy_student", NAMES, project / "models", project / "corpus", project / "best", robustness)
    return (project / "best" / "README.md").read_text()


def test_the_best_is_not_the_last(project: Path) -> None:
    card_of(project)
    assert (project / "best" / "model.safetensors").read_bytes() == b"student1"
    why = json.loads((project / "best" / "best.json").read_text())
    assert (why["run"], why["temperature"], len(why["stop_rule"])) == ("student1", 0.8, 1)
    (project / "models" / "student1" / "model.safetensors").write_bytes(b"another")
    with pytest.raises(UserError, match="not the model that .* evaluated"):
        card_of(project)


def test_the_cards_front_matter_is_what_hubs_read(project: Path) -> None:
    card_of(project)
    card = ModelCard.load(project / "best" / "README.md", ignore_metadata_errors=False)
    found = {(result.dataset_split, result.metric_type): result.metric_value for result in card.data.eval_results}
    assert found == {
        ("test", "accuracy"): 0.9,
        ("test", "expected_calibration_error"): 0.08,
        ("validation", "accuracy"): 0.91,
        ("validation", "expected_calibration_error"): 0.07,
    }
    front = yaml.safe_load((project / "best" / "README.md").read_text().split("---")[1])
    assert (front["library_name"], front["pipeline_tag"]) == ("timm", "image-classification")


def test_the_cards_figures_are_the_evaluations(project: Path) -> None:
    text = card_of(project)
    assert "| test accuracy | 90.0% | 87.0% – 93.0% |" in text
    assert "| student1 | teacher | 1,200 (60.0%) | 97.0% | 95.5% | 91.0% | 90.0% |" in text
    assert "student2" not in text.split("## Rounds")[1].split("## Figures")[0], "the model's own chain alone"
    assert "Dividing the logits by 0.80" in text
    assert "too modest" in text
    for limit in (
        "500 test images tell its accuracy to 87.0% – 93.0% only",
        "It is worst at dog: 82.0% of the test images",
        "7 images known to be of no class were among its pseudo-labels",
        "4 copies of held-out images were found in the pool",
        "was not measured",
        "student1 does not beat teacher on validation",
    ):
        assert limit in text
    for fact in ("| labeled | 500 |", "`id-student1`", "`abc`", hashlib.sha256(b"student1").hexdigest()):
        assert fact in text


def test_robustness_is_told_only_of_these_very_weights(project: Path) -> None:
    figures: dict[str, Any] = {
        "weights": hashlib.sha256(b"student1").hexdigest(),
        "mean_corruption_error": 0.25,
        "mce": 0.5,
        "reference": "teacher",
    }
    figures |= {"mean_flip_probability": 0.1, "pgd": {"4": 0.3}}
    path = project / "figures.json"
    path.write_text(json.dumps({"s": figures}))
    text = card_of(project, path)
    assert "| mean error under fifteen corruptions at five severities | 25.0% |" in text
    assert "| accuracy under PGD, ε = 4 of 255 | 30.0% |" in text
    assert "not measured" not in text
    path.write_text(json.dumps({"s": figures | {"weights": hashlib.sha256(b"another training").hexdigest()}}))
    assert "Not measured by this pipeline" in card_of(project, path)
