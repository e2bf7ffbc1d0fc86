"""The model as other programs take it: plain timm, ONNX, torch.export, MLflow's server, each really loaded."""

import ast
import base64
import io
import json
import os
import subprocess
import sys
import time
import urllib.request
from importlib.metadata import packages_distributions
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from selftrain.images.decode import decode_pixels
from selftrain.images.transforms import clean
from selftrain.networks.export import export_model
from selftrain.networks.models import create_model, load_model, to_input
from selftrain.plumbing.errors import UserError
from selftrain.release.formats import export_formats
from tests.conftest import free_port, image_bytes
from tests.repository import ROOT

CLASSES = ["cat", "dog", "owl"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("release") / "best"
    torch.manual_seed(0)
    export_model(create_model("test_resnet", 3, 32), folder, classes=CLASSES, image_size=32, crop_fraction=0.9)
    return folder


def expected(folder: Path, files: list[bytes]) -> torch.Tensor:
    """Probabilities as ``predict`` has them."""
    network, record = load_model(folder)
    squares = np.stack([clean(decode_pixels(data), 32, 0.9) for data in files])
    config = record["pretrained_cfg"]
    inputs = to_input(torch.from_numpy(squares), config["mean"], config["std"], torch.device("cpu"))
    with torch.inference_mode():
        return network(inputs).softmax(dim=1)


@pytest.mark.slow
def test_onnx_and_torch_export_are_the_model_for_any_batch(model: Path, tmp_path: Path) -> None:
    import onnx
    import onnxruntime

    differences = export_formats(model, tmp_path)
    assert set(differences) == {"model.onnx", "model.pt2"}
    files = [image_bytes(seed, (40, 40)) for seed in range(5)]
    squares = np.stack([clean(decode_pixels(data), 32, 0.9) for data in files])
    images = (squares.transpose(0, 3, 1, 2) / 255).astype(np.float32)
    wanted = expected(model, files)
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    (logits,) = session.run(None, {"images": images})
    np.testing.assert_allclose(torch.from_numpy(logits).softmax(1), wanted, atol=1e-5)
    program = torch.export.load(tmp_path / "model.pt2").module()
    torch.testing.assert_close(program(torch.from_numpy(images)).softmax(1), wanted, atol=1e-5, rtol=0)
    properties = {item.key: item.value for item in onnx.load(tmp_path / "model.onnx").metadata_props}
    assert json.loads(properties["classes"]) == CLASSES
    assert (properties["image_size"], properties["crop_fraction"]) == ("32", "0.9")


@pytest.mark.slow
def test_the_cards_own_lines_run_in_plain_timm(model: Path, tmp_path: Path) -> None:
    template = (ROOT / "src" / "selftrain" / "release" / "card.md").read_text()
    code = template.split("```python\n")[1].split("```")[0].replace("{{ record.pipeline }}", "pets")
    (tmp_path / "models" / "pets").mkdir(parents=True)
    (tmp_path / "models" / "pets" / "best").symlink_to(model)
    Image.open(io.BytesIO(image_bytes(3, (40, 40)))).save(tmp_path / "image.jpg", quality=95)
    ran = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    name, confidence = ran.stdout.split()
    probs = expected(model, [(tmp_path / "image.jpg").read_bytes()])[0]
    assert name == CLASSES[int(probs.argmax())]
    assert float(confidence) == pytest.approx(float(probs.max()), abs=0.05)


def full_disk(**_: object) -> None:
    raise OSError(28, "No space left on device")


def test_what_serves_a_model_brings_every_library_that_it_imports() -> None:
    from selftrain.release.register import LIBRARIES, OF_SOME

    program = (
        "import sys, selftrain.release.served_model; "
        "print(*[module.__file__ for name, module in sys.modules.items() if name.startswith('selftrain')])"
    )
    shown = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout
    packages = packages_distributions()
    used = set()
    for file in shown.split():
        for statement in ast.parse(Path(file).read_text(encoding="utf-8")).body:
            if isinstance(statement, ast.Import):
                names = [name.name for name in statement.names]
            else:
                names = [statement.module or ""] if isinstance(statement, ast.ImportFrom) else []
            used |= {name.partition(".")[0] for name in names} & packages.keys() - {"selftrain"}
    unlisted = {name for name in used if not {package.lower() for package in packages[name]} & {*LIBRARIES, *OF_SOME}}
    assert unlisted == set()
    assert "simplejpeg" in used


@pytest.mark.slow
def test_the_champion_is_served(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import mlflow

    from selftrain.plumbing.tracking import tracking_uri
    from selftrain.release.register import register

    uri = f"sqlite:///{tmp_path}/mlflow.db"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///mlflow.db")
    assert tracking_uri() == uri
    mlflow.set_tracking_uri(uri)
    client = mlflow.MlflowClient(uri)
    run = client.create_run(client.create_experiment("selftrain"))
    client.set_terminated(run.info.run_id, "FINISHED", end_time=1234567)
    (model / "run.json").write_text(json.dumps({"run": "student", "mlflow_run_id": run.info.run_id}))
    for wrong in ("a/b", "photos:1", " "):
        with pytest.raises(UserError, match="give another NAME"):
            register(model, wrong)
    assert register(model, "pets") == "models:/pets@champion"
    assert register(model, "pets") == "models:/pets@champion"
    version = client.get_model_version_by_alias("pets", "champion")
    assert (int(version.version), version.run_id) == (2, run.info.run_id)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mlflow.pyfunc, "log_model", full_disk)
        with pytest.raises(OSError, match="No space"):
            register(model, "pets")
    ended = client.get_run(run.info.run_id).info
    assert (ended.status, ended.end_time) == ("FINISHED", 1234567), "registering does not stretch the training"
    signature = mlflow.models.get_model_info("models:/pets@champion").signature
    assert [column.name for column in signature.inputs] == ["image"]
    assert [column.name for column in signature.outputs] == ["label", "confidence", "probabilities"]
    stored = {path.suffix for path in tmp_path.rglob("*") if path.is_file()}
    assert ".pkl" not in stored

    port = free_port()
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    command = ["models", "serve", "-m", "models:/pets@champion", "--env-manager", "local", "-p", str(port)]
    server = subprocess.Popen(
        [sys.executable, "-m", "mlflow", *command], cwd=tmp_path, env=environment | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    try:
        files = [image_bytes(seed, (50, 37), kind) for seed, kind in ((1, "PNG"), (2, "JPEG"))]
        records = [{"image": base64.b64encode(data).decode()} for data in files]
        request = urllib.request.Request(
            f"http://127.0.0.1:{port}/invocations",
            json.dumps({"dataframe_records": records}).encode(),
            {"Content-Type": "application/json"},
        )
        answer = None
        deadline = time.monotonic() + 90
        while answer is None and time.monotonic() < deadline:
            try:
                answer = json.loads(urllib.request.urlopen(request).read())["predictions"]
            except OSError:
                assert server.poll() is None
                time.sleep(0.5)
        assert answer is not None
        wanted = expected(model, files)
        for row, probs in zip(answer, wanted, strict=True):
            assert row["label"] == CLASSES[int(probs.argmax())]
            np.testing.assert_allclose(row["probabilities"], probs, atol=1e-5)
            assert row["confidence"] == pytest.approx(float(probs.max()), abs=1e-5)
    finally:
        os.killpg(server.pid, 15)
        server.wait()
