import json
from pathlib import Path

import pytest

from selftrain.networks.export import export_model
from selftrain.networks.models import create_model
from selftrain.plumbing.errors import UserError
from selftrain.plumbing.files import sha256_of
from selftrain.release import footprint as footprints
from tests.release.evaluated import write_run

WEIGHTS = "model.safetensors"
SMALL = {"channels": [8, 16, 16, 32]}


def test_what_each_model_costs_is_counted_and_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    monkeypatch.setattr(footprints, "SECONDS", 0.2)
    evaluation, models = tmp_path / "evaluation" / "p", tmp_path / "models"
    for name, accuracy, options in (("teacher", 0.9, {}), ("student1", 0.8, SMALL)):
        write_run(evaluation, models, name, None, accuracy)
        (models / name / "model.safetensors").unlink()
        export_model(
            create_model("test_resnet", 2, 32, options=options), models / name, classes=["a", "b"], image_size=32,
            crop_fraction=1.0, options=options,
        )  # fmt: skip
        record = evaluation / name / "details" / "run.json"
        record.write_text(json.dumps(json.loads(record.read_text()) | {"weights": sha256_of(models / name / WEIGHTS)}))
    footprints.write_footprints(evaluation, models, ["teacher", "student1"], tmp_path / "out")
    with (models / "teacher" / WEIGHTS).open("ab") as file:
        file.write(b"trained again")
    with pytest.raises(UserError, match="teacher: not the model that .* evaluated; run `dvc repro`"):
        footprints.write_footprints(evaluation, models, ["teacher", "student1"], tmp_path / "again")
    found = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert found["student1"]["parameters"] < found["teacher"]["parameters"] / 4
    for name, own in found.items():
        size = (models / name / WEIGHTS).stat().st_size - len(b"trained again" if name == "teacher" else b"")
        assert own["size_mib"] == pytest.approx(size / 2**20, rel=1e-9)
        assert own["latency_ms_1"] > 0
        assert own["latency_ms_64"] > 0
    table = (tmp_path / "out" / "table.md").read_text().splitlines()
    assert [row.split(" | ")[0] for row in table[2:]] == ["| teacher", "| student1"], "the largest first"
    assert "80.0%" in table[3]
    shown = capsys.readouterr().out
    assert "its figures are not in MLflow" in shown
    assert "ms for 64" in shown
