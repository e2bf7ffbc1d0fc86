"""Every place that weights may come from, with weights that are there: a package, folders, files, a hub on loopback."""

import hashlib
import http.server
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from selftrain.images.transforms import clean
from selftrain.networks.export import export_model
from selftrain.networks.models import create_model, normalization, to_input
from selftrain.networks.weights import weights_arguments
from selftrain.plumbing.errors import UserError


@pytest.fixture
def three_classes(tmp_path: Path) -> Path:
    torch.manual_seed(1)
    folder = tmp_path / "three"
    export_model(create_model("test_resnet", 3, 32), folder, classes=["a", "b", "c"], image_size=32, crop_fraction=1.0)
    return folder


def same_but_for_the_classifier(model: torch.nn.Module, folder: Path) -> bool:
    wanted = load_file(folder / "model.safetensors")
    found = model.state_dict()
    return all(torch.equal(found[name], wanted[name]) for name in found if not name.startswith("fc."))


@pytest.mark.slow
def test_the_package_s_network_sees_what_is_in_scikit_learns_photographs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sklearn.datasets import load_sample_image
    from timm.data.imagenet_info import ImageNetInfo

    monkeypatch.chdir(tmp_path)
    model = create_model("tf_efficientnet_lite0", 1000, 224, weights="package").eval()
    converted = tmp_path / ".selftrain" / "weights" / "tf_efficientnet_lite0.safetensors"
    before = converted.stat().st_mtime_ns
    create_model("tf_efficientnet_lite0", 10, 224, weights="package")
    assert converted.stat().st_mtime_ns == before, "converted once"
    mean, std = normalization(model)
    assert (mean, std) == ([0.5] * 3, [0.5] * 3)
    for name, word in (("china.jpg", "palace"), ("flower.jpg", "daisy")):
        square = clean(np.array(load_sample_image(name)), 224, 0.875)
        with torch.inference_mode():
            logits = model(to_input(torch.from_numpy(square)[None], mean, std, torch.device("cpu")))
        assert word in ImageNetInfo().index_to_description(int(logits.argmax())), name


@pytest.mark.parametrize("num_classes", [3, 5])
@pytest.mark.parametrize("source", ["folder", "file"])
def test_the_classifier_is_new_where_the_classes_differ(three_classes: Path, source: str, num_classes: int) -> None:
    given = three_classes if source == "folder" else three_classes / "model.safetensors"
    model = create_model("test_resnet", num_classes, 32, weights=str(given))
    assert same_but_for_the_classifier(model, three_classes)
    wanted = load_file(three_classes / "model.safetensors")["fc.weight"]
    assert model.get_classifier().weight.shape[0] == num_classes
    assert torch.equal(model.get_classifier().weight[:3], wanted) == (num_classes == 3)


def test_weights_of_something_else_are_named(three_classes: Path, tmp_path: Path) -> None:
    file = str(three_classes / "model.safetensors")
    with pytest.raises(UserError, match=r"three is a test_resnet and cannot start a resnet18"):
        create_model("resnet18", 3, 32, weights=str(three_classes))
    for num_classes in (3, 5):
        with pytest.raises(UserError, match="model.safetensors is no 'resnet18'"):
            create_model("resnet18", num_classes, 32, weights=file)
        with pytest.raises(UserError, match=r"is no 'test_resnet' with these options: '.*' is \(.*\), not \("):
            create_model("test_resnet", num_classes, 32, weights=file, options={"channels": [8, 8, 8, 8]})
    damaged = tmp_path / "damaged.safetensors"
    damaged.write_bytes(Path(file).read_bytes()[:1000])
    with pytest.raises(UserError, match="damaged.safetensors is not a whole safetensors file"):
        create_model("test_resnet", 3, 32, weights=str(damaged))
    lacking = load_file(file)
    lacking.pop("conv1.weight", None) or lacking.pop(next(iter(lacking)))
    save_file(lacking, tmp_path / "lacking.safetensors")
    with pytest.raises(UserError, match="it has no tensor"):
        create_model("test_resnet", 5, 32, weights=str(tmp_path / "lacking.safetensors"))
    for nothing in ("nowhere", "true", "weights.onnx"):
        with pytest.raises(UserError, match=f"'{nothing}' is nothing to start from"):
            create_model("test_resnet", 3, 32, weights=nothing)
    with pytest.raises(UserError, match="no package holds weights of 'test_resnet'; there are: tf_efficientnet_lite0"):
        create_model("test_resnet", 3, 32, weights="package")


class Hub(http.server.SimpleHTTPRequestHandler):
    """What a hub answers of one repository: its files, with the headers by which a client knows their version."""

    def translate_path(self, path: str) -> str:
        name = re.sub(r"^/me/three/resolve/[^/]+/", "/", path)
        return super().translate_path(name)

    def end_headers(self) -> None:
        self.send_header("ETag", f'"{hashlib.sha256(self.path.encode()).hexdigest()}"')
        self.send_header("X-Repo-Commit", "0" * 40)
        super().end_headers()

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def hub(three_classes: Path) -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Hub, directory=str(three_classes)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


PROGRAM = """
import sys
from safetensors.torch import save_file
from selftrain.networks.models import create_model
from selftrain.plumbing.errors import UserError
try:
    save_file(create_model(sys.argv[1], 5, 32, weights=f"hf-hub:me/{sys.argv[2]}").state_dict(), "got.safetensors")
except UserError as error:
    sys.exit(str(error))
"""


@pytest.mark.slow
def test_a_hubs_weights_and_what_is_said_where_there_are_none(hub: str, three_classes: Path, tmp_path: Path) -> None:
    def create(model: str, name: str, endpoint: str) -> str:
        environment = os.environ | {"HF_HOME": str(tmp_path / "cache"), "HF_ENDPOINT": endpoint}
        command = [sys.executable, "-c", PROGRAM, model, name]
        return subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        ).stderr

    assert create("test_resnet", "three", hub) == ""
    got, wanted = load_file(tmp_path / "got.safetensors"), load_file(three_classes / "model.safetensors")
    assert len(got) == len(wanted)
    assert all(torch.equal(got[name], wanted[name]) for name in wanted if not name.startswith("fc."))
    said = create("resnet18", "three", hub)
    assert "train.weights: hf-hub:me/three is a test_resnet and cannot start a resnet18" in said
    said = create("test_resnet", "other", "http://127.0.0.1:9")
    assert "train.weights: the weights of 'test_resnet' (hf-hub:me/other) cannot be had" in said
    assert "Traceback" not in said


@pytest.mark.parametrize("name", ["model.pth", "model.bin", "model.pt", "model.ckpt", "model.pkl"])
def test_what_may_be_a_pickle_is_refused_by_name(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"cos\nsystem\n(S'touch pwned'\ntR.")
    for source in (tmp_path / name, tmp_path):
        with pytest.raises(
            UserError, match="may be a pickle, which runs code when it is read; give a safetensors file"
        ):
            weights_arguments(str(source), "test_resnet", {})
