"""Real models through every suite, and the figures from the tables."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from PIL import Image

from selftrain.evaluation.robustness.corruptions import CORRUPTIONS, corrupt
from selftrain.evaluation.robustness.figures import robustness_figures
from selftrain.evaluation.robustness.perturbations import PERTURBATIONS
from selftrain.evaluation.robustness.run import run_suites
from selftrain.networks.export import export_model
from selftrain.networks.models import create_model
from selftrain.params.robustness import RobustnessConfig
from selftrain.plumbing.errors import UserError
from selftrain.plumbing.files import read_json
from selftrain.plumbing.hardware import HardwareConfig
from selftrain.report.robustness_page import write_robustness
from selftrain.tables.manifest import read_manifest
from selftrain.tables.robustness import read_suite

MACHINE = HardwareConfig(device="cpu", threads=1, workers=0, predict_batch_size=8)
CLASSES = [str(digit) for digit in range(10)]


def make_model(folder: Path, seed: int, teacher: str | None) -> Path:
    torch.manual_seed(seed)
    export_model(create_model("test_resnet", 10, 32), folder, classes=CLASSES, image_size=32, crop_fraction=1.0)
    record = {"run": folder.name, "teacher": teacher, "mlflow_run_id": "none"}
    (folder / "run.json").write_text(json.dumps(record))
    return folder


@pytest.fixture(scope="module")
def tables(digits_corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two untrained models through small suites, with a folder of other images of four classes."""
    root = tmp_path_factory.mktemp("robustness")
    rng = np.random.default_rng(0)
    for name in ("1", "4", "7", "9"):
        (root / "other" / name).mkdir(parents=True)
        for number in range(3):
            Image.fromarray(rng.integers(0, 255, (9, 9, 3), dtype=np.uint8)).save(
                root / "other" / name / f"{number}.png"
            )
    (root / "other" / "1" / "broken.png").write_bytes(b"\x89PNG nothing")
    (root / "other" / "beside.png").write_bytes((root / "other" / "1" / "0.png").read_bytes())
    config = RobustnessConfig(images=12, fgsm=(1, 8), pgd=(8,), passes=2, folders={"other": str(root / "other")})
    for seed, (name, teacher) in enumerate((("teacher", None), ("student", "teacher"))):
        run_suites(make_model(root / name, seed, teacher), digits_corpus, config, 0, MACHINE, root / "tables" / name)
    return root / "tables"


def test_every_condition_has_a_table_of_the_same_images(tables: Path, digits_corpus: Path) -> None:
    expected = {
        "corruptions": set(CORRUPTIONS),
        "perturbations": set(PERTURBATIONS),
        "adversarial": {"fgsm", "pgd"},
        "randaugment": {"crop_and_flip", "randaugment"},
        "folders": {"other"},
    }
    truth = dict(read_manifest(digits_corpus / "test", ["key", "label"]).to_pandas().itertuples(index=False))
    for run in ("teacher", "student"):
        assert {suite: set(read_suite(tables / run, suite)) for suite in expected} == expected
    keys = set(read_suite(tables / "teacher", "corruptions")["fog"]["key"])
    assert len(keys) == 12
    for suite in ("corruptions", "perturbations", "adversarial"):
        for table in read_suite(tables / "student", suite).values():
            assert set(table["key"]) == keys
            assert all(truth[key] == label for key, label in table.select("key", "label").iter_rows())
    assert sorted(set(read_suite(tables / "student", "corruptions")["fog"]["level"])) == [1, 2, 3, 4, 5]


def test_predictions_are_those_of_the_corrupted_image(tables: Path, digits_corpus: Path) -> None:
    from selftrain.images import transforms
    from selftrain.images.index import load_index
    from selftrain.images.loading import ImageLoader
    from selftrain.networks.models import load_model, to_input

    model, record = load_model(tables.parent / "student")
    loader = ImageLoader(load_index(digits_corpus / "test"))
    row = read_suite(tables / "student", "corruptions")["snow"].filter(pl.col("level") == 4).row(5, named=True)
    place = int(np.flatnonzero(loader.index.keys == row["key"])[0])
    square = np.asarray(transforms.clean(loader.image(place), 32))[None]
    shown = torch.from_numpy(corrupt(square, np.array([row["key"]]), "snow", 4, 0))
    logits = model(
        to_input(shown, record["pretrained_cfg"]["mean"], record["pretrained_cfg"]["std"], torch.device("cpu"))
    )
    assert row["predicted"] == int(logits.argmax())
    assert row["confidence"] == pytest.approx(float(logits.softmax(dim=1).max().detach()), abs=1e-4)


def test_figures_against_polars_by_hand(tables: Path) -> None:
    figures = robustness_figures(tables, None, "teacher")
    errors = {}
    for run in ("teacher", "student"):
        table = read_suite(tables / run, "corruptions")["contrast"]
        errors[run] = float((table["label"] != table["predicted"]).mean())
        assert figures[run]["corruption_errors"]["contrast"] == pytest.approx(errors[run])
    assert figures["student"]["ce"]["contrast"] == pytest.approx(errors["student"] / errors["teacher"])
    assert figures["teacher"]["mce"] == pytest.approx(1)
    rows = read_suite(tables / "student", "perturbations")["rotate"].sort("key", "level")
    flips = [
        a != b for _, own in rows.group_by("key") for a, b in zip(own["predicted"], own["predicted"][1:], strict=False)
    ]
    assert figures["student"]["flip_probabilities"]["rotate"] == pytest.approx(np.mean(flips))
    assert figures["student"]["fgsm"].keys() == {"1", "8"}
    assert figures["student"]["randaugment"]["test_passes"] == 2
    other = figures["student"]["folders"]["other"]
    assert (other["images"], other["classes"], other["top5"]) == (12, 4, 1.0)
    with pytest.raises(UserError, match="'student9' has no robustness tables; there are: student, teacher"):
        robustness_figures(tables, None, "student9")


def test_again_writes_nothing_and_what_is_no_longer_asked_for_goes(
    tables: Path, digits_corpus: Path, tmp_path: Path
) -> None:
    shutil.copytree(tables / "teacher", tmp_path / "t")
    before = {path: os.stat(path).st_mtime_ns for path in (tmp_path / "t").rglob("*.parquet")}
    config = RobustnessConfig(images=12, fgsm=(1, 8), pgd=(8,), passes=2, suites=("adversarial", "corruptions"))
    run_suites(tables.parent / "teacher", digits_corpus, config, 0, MACHINE, tmp_path / "t")
    after = {path: os.stat(path).st_mtime_ns for path in (tmp_path / "t").rglob("*.parquet")}
    assert len(after) == 17
    assert all(before[path] == time for path, time in after.items())


def test_a_folder_in_imagenet_cs_layout(tables: Path, digits_corpus: Path, tmp_path: Path) -> None:
    for corruption in CORRUPTIONS:
        for severity in range(1, 6):
            group = "noise" if corruption.endswith("noise") else "."  # as the archives are, and as others lay them out
            shutil.copytree(tables.parent / "other", tmp_path / "c" / group / corruption / str(severity))
    config = RobustnessConfig(suites=("corruptions",), corruptions_folder=str(tmp_path / "c"), reference="alexnet")
    run_suites(tables.parent / "student", digits_corpus, config, 0, MACHINE, tmp_path / "t" / "student")
    figures = robustness_figures(tmp_path / "t", None, "alexnet")["student"]
    assert figures["reference"] == "alexnet"
    error = figures["corruption_errors"]["fog"]
    assert figures["ce"]["fog"] == pytest.approx(error / 0.819324)
    (tmp_path / "c" / "fog" / "1" / "cat").mkdir()
    (tmp_path / "c" / "fog" / "1" / "cat" / "x.png").write_bytes((tables.parent / "other" / "1" / "0.png").read_bytes())
    with pytest.raises(UserError, match="its class 'cat' is none of the model's"):
        run_suites(tables.parent / "student", digits_corpus, config, 1, MACHINE, tmp_path / "u")
    shutil.rmtree(tmp_path / "c" / "snow" / "3")
    with pytest.raises(UserError, match=r"no folder snow/3 in it"):
        run_suites(tables.parent / "student", digits_corpus, config, 0, MACHINE, tmp_path / "t" / "other")


def test_the_page_tells_what_it_is_relative_to(
    tables: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_robustness(tables, ["teacher", "student"], "teacher", tmp_path / "out")
    page = (tmp_path / "out" / "details" / "index.html").read_text()
    assert "relative to the errors of teacher" in " ".join(page.split())
    assert page.count("<svg") == 2
    printed = capsys.readouterr().out
    assert "its figures are not in MLflow" in printed
    assert list(json.loads((tmp_path / "out" / "metrics.json").read_text())) == ["teacher", "student"]


def test_runs_that_cannot_be_compared_are_an_error_and_others_left_out(
    tables: Path, digits_corpus: Path, tmp_path: Path
) -> None:
    shutil.copytree(tables, tmp_path / "t")
    shutil.rmtree(tmp_path / "t" / "teacher" / "corruptions")
    with pytest.raises(UserError, match="'teacher' lacks tables of corruptions that others have"):
        robustness_figures(tmp_path / "t", None, "teacher")
    assert list(robustness_figures(tmp_path / "t", ["teacher"], "teacher")) == ["teacher"]
    large = tmp_path / "large"
    export_model(create_model("test_resnet", 10, 48), large, classes=CLASSES, image_size=48, crop_fraction=1.0)
    (large / "run.json").write_text(json.dumps({"run": "large", "teacher": None, "mlflow_run_id": "none"}))
    config = RobustnessConfig(images=12, suites=("corruptions",))
    run_suites(large, digits_corpus, config, 0, MACHINE, tmp_path / "s" / "large")
    shutil.copytree(tables / "student", tmp_path / "s" / "student")
    with pytest.raises(
        UserError, match=r"different sizes \(large 48, student 32 pixels\); set `robustness.image_size`"
    ):
        robustness_figures(tmp_path / "s", None, "large")
    # At one size for all, the images are the same and only then resized to the network.
    same = config.model_copy(update={"image_size": 32})
    run_suites(large, digits_corpus, same, 0, MACHINE, tmp_path / "s" / "large")
    assert read_json(tmp_path / "s" / "large" / "run.json", "")["robustness_size"] == 32
    assert set(robustness_figures(tmp_path / "s", ["large"], "large")) == {"large"}


def test_sizes_of_attacks_are_checked() -> None:
    with pytest.raises(ValueError, match="`fgsm` is a list of sizes above 0"):
        RobustnessConfig(fgsm=(0, 1))
    with pytest.raises(ValueError, match="smallest, largest"):
        RobustnessConfig(random_crop=(0.9, 0.2))
