"""Models from elsewhere, and several as one, as runs."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from torch import nn
from torch.nn import functional

from selftrain.history.lineage import trace
from selftrain.networks.export import export_model
from selftrain.networks.models import create_model, load_model
from selftrain.params.adopted import AdoptedConfig, adopted_config
from selftrain.plumbing.errors import UserError
from selftrain.training.adopt import adopt

CLASSES = ["a", "b", "c"]


@pytest.fixture
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, nn.Module]:
    """Two model folders of different architecture, normalisation and size, in the folder that one is in."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    made = {}
    for name, model, size, options in (
        ("one", "test_resnet", 32, {"channels": [8, 16, 16, 32]}),
        ("other", "test_efficientnet", 48, {}),
    ):
        torch.manual_seed(size)
        made[name] = create_model(model, 3, size, options=options).eval()
        export_model(made[name], Path(name), classes=CLASSES, image_size=size, crop_fraction=1.0, options=options)
    return made


def adopted(name: str, **config: Any) -> dict[str, Any]:
    adopt(name, AdoptedConfig.model_validate(config), "p", CLASSES, 0, Path("models") / name)
    return json.loads((Path("models") / name / "run.json").read_text())


def test_one_model_is_taken_as_it_is(models: dict[str, nn.Module]) -> None:
    record = adopted("large", models=["one"])
    taken, config = load_model(Path("models/large"))
    images = torch.randn(4, 3, 32, 32)
    assert torch.equal(taken(images), models["one"](images))
    assert (config["label_names"], config["pretrained_cfg"]["input_size"]) == (CLASSES, [3, 32, 32])
    assert record["run"] == "large"
    assert record["members"][0]["path"] == "one"
    assert record["parameters"] == sum(weight.numel() for weight in models["one"].parameters()) < 60_000
    links = {link.kind: link for link in trace(Path("models/large")).all()}
    assert links["adopted"].state == "found"
    (Path("one") / "model.safetensors").write_bytes(b"other")
    links = {link.kind: link for link in trace(Path("models/large")).all()}
    assert (links["adopted"].state, links["adopted"].trouble[:7]) == ("changed", "another")
    (Path("one") / "model.safetensors").unlink()
    assert {link.kind: link.state for link in trace(Path("models/large")).all()}["adopted"] == "missing"


def test_members_of_an_ensemble_see_their_own_crops(models: dict[str, nn.Module]) -> None:
    """Whatever their order: each sees as much of an image as when it is alone."""
    config = json.loads(Path("one/config.json").read_text())
    config["pretrained_cfg"]["crop_pct"] = 0.5
    Path("one/config.json").write_text(json.dumps(config))
    images = torch.randn(4, 3, 64, 64)
    found = []
    for name, members in (("a", ["one", "other"]), ("b", ["other", "one"])):
        adopted(name, models=members)
        both, config = load_model(Path("models") / name)
        assert config["pretrained_cfg"]["crop_pct"] == 1.0
        found.append(both(images))
    torch.testing.assert_close(*found)
    (place,) = [place for place, crop in enumerate(both.crops) if crop == 0.5]  # type: ignore[arg-type,union-attr]
    seen = both.forward_features(images)[place]  # type: ignore[operator]
    middle = images[..., 16:48, 16:48]
    torch.testing.assert_close(seen, models["one"].forward_features(middle))  # type: ignore[operator]


def test_several_are_the_weighted_mean_of_what_they_say(models: dict[str, nn.Module]) -> None:
    record = adopted("two", models=["one", "other"], weights=[2, 1])
    both, config = load_model(Path("models/two"))
    images = torch.randn(4, 3, 48, 48)
    shown = (images * 0.5 + 0.5 - torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)) / torch.tensor(
        [0.229, 0.224, 0.225]
    ).view(3, 1, 1)
    smaller = functional.interpolate(images, size=(32, 32), mode="bilinear", antialias=True)
    mean = 2 / 3 * models["one"](smaller).softmax(1) + 1 / 3 * models["other"](shown).softmax(1)
    torch.testing.assert_close(both(images), mean.log(), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(both(images).exp().sum(1), torch.ones(4))
    assert config["pretrained_cfg"]["input_size"] == [3, 48, 48]
    assert record["model"] == "test_resnet + test_efficientnet"
    assert both.forward_head(both.forward_features(images), pre_logits=True).shape == (4, 32 + 256)


def test_an_adopted_run_is_in_mlflow_and_its_line_goes_back(models: dict[str, nn.Module]) -> None:
    from mlflow import MlflowClient

    first = adopted("first", models=["one"])
    second = adopted("second", models=["models/first", "other"])
    run = MlflowClient(f"sqlite:///{Path.cwd()}/mlflow.db").get_run(second["mlflow_run_id"])
    assert (run.data.tags["round"], run.data.tags["algorithm"], run.info.status) == ("second", "adopt", "FINISHED")
    link = next(link for link in trace(Path("models/second")).all() if link.path == "models/first")
    assert (link.kind, link.state, link.mlflow_run_id) == ("adopted", "found", first["mlflow_run_id"])


def test_pretrained_weights_need_the_corpuss_classes(
    models: dict[str, nn.Module], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match="resnet18.a1_in1k: its 1000 classes are not the corpus's 3: 'a' is in one"):
        adopted("x", models=["resnet18.a1_in1k"])
    synsets = timm.data.ImageNetInfo().label_names()
    # The classes fit, so it is the download that fails.
    with pytest.raises(UserError, match="the weights of 'resnet18.a1_in1k' .timm. cannot be had"):
        adopt("x", AdoptedConfig(models=["resnet18.a1_in1k"]), "p", list(synsets), 0, Path("models/x"))
    with pytest.raises(UserError, match="in another order"):
        adopt("x", AdoptedConfig(models=["resnet18.a1_in1k"]), "p", list(synsets)[::-1], 0, Path("models/x"))
    assert not Path("models/x").exists()


def test_user_errors(models: dict[str, nn.Module]) -> None:
    for source, message in (
        ("models/nope", "no timm model folder there"),
        ("resnet18.nonsense", "models: timm knows no 'resnet18.nonsense'; did you mean 'resnet18"),
        ("botnet50ts_256", "no pretrained weights of this name"),
        ("resnet5O", "models: timm knows no model 'resnet5O'; did you mean"),
    ):
        with pytest.raises(UserError, match=message):
            adopted("x", models=[source])
    export_model(create_model("test_resnet", 2, 32), Path("two"), classes=["a", "b"], image_size=32, crop_fraction=1)
    with pytest.raises(UserError, match="'c' is in one of them only"):
        adopted("x", models=["two"])
    params = {"teachers": {"large": {"models": ["one"], "weights": [1, 2]}}, "supervised": {"alone": {}}}
    with pytest.raises(UserError, match=r"teachers.large: give as many `weights`"):
        adopted_config(params, "large", "params.yaml")
    with pytest.raises(UserError, match="'alone' is not under teachers, ensembles, pretrained"):
        adopted_config(params, "alone", "params.yaml")
    for section, sources, message in (
        ("teachers", ["one", "other"], r"teachers.x.models: 1 of them, not 2"),
        ("ensembles", ["one"], r"ensembles.x.models: 2 of them, not 1"),
        ("ensembles", ["one", "other", "one"], r"not 3; for three, average two first"),
        ("pretrained", ["one"], r"pretrained.x.models: names of timm's weights; folders are `teachers`"),
    ):
        with pytest.raises(UserError, match=message):
            adopted_config({section: {"x": {"models": sources}}}, "x", "params.yaml")


def test_a_bare_config_json_is_enough(models: dict[str, nn.Module]) -> None:
    config = json.loads(Path("one/config.json").read_text())
    for name in ("crop_pct", "interpolation"):
        config["pretrained_cfg"].pop(name, None)
    Path("one/config.json").write_text(json.dumps(config))
    adopted("large", models=["one"])
    taken, _ = load_model(Path("models/large"))
    images = torch.randn(4, 3, 32, 32)
    assert torch.equal(taken(images), models["one"](images))
    del config["pretrained_cfg"]
    Path("one/config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match="one: not a whole timm model folder"):
        adopted("large", models=["one"])


def test_an_ensemble_may_be_a_member_and_its_shares_are_in_its_weights(models: dict[str, nn.Module]) -> None:
    adopted("two", models=["one", "other"])
    record = adopted("three", models=["models/two", "one"], weights=[2, 1])
    images = torch.randn(4, 3, 48, 48)
    two, three = load_model(Path("models/two"))[0], load_model(Path("models/three"))[0]
    smaller = functional.interpolate(images, size=(32, 32), mode="bilinear", antialias=True)
    expected = 2 / 3 * two(images).exp() + 1 / 3 * models["one"](smaller).softmax(1)
    torch.testing.assert_close(three(images).exp(), expected, atol=1e-4, rtol=1e-4)
    assert adopted("again", models=["models/two", "one"], weights=[2, 1])["weights"] == record["weights"]
    assert adopted("other_shares", models=["models/two", "one"], weights=[1, 2])["weights"] != record["weights"]


def test_what_a_models_chain_was_trained_on_is_not_forgotten(models: dict[str, nn.Module]) -> None:
    def write_record(folder: str, **record: Any) -> None:
        (Path(folder) / "run.json").write_text(json.dumps({"run": folder, "train_seconds": 1.0} | record))

    write_record("other", train={"resplit": {"splits": ["labeled", "test"]}})
    write_record("one", train={"resplit": None}, paths={"teacher": "other"})
    assert adopted("large", models=["one"])["saw"] == ["labeled", "test"]
    assert adopted("larger", models=["models/large", "one"])["saw"] == ["labeled", "test"]
    write_record("one")
    assert adopted("fair", models=["one"])["saw"] == []


def test_a_model_without_names_has_to_be_given_them(models: dict[str, nn.Module]) -> None:
    config = json.loads(Path("one/config.json").read_text())
    del config["label_names"]
    Path("one/config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match=r'does not say which 3 classes .* "label_names": \["a", …\]'):
        adopted("large", models=["one"])
    with pytest.raises(UserError, match="knows 3 classes, the corpus has 2"):
        adopt("x", AdoptedConfig(models=["one"]), "p", ["a", "b"], 0, Path("models/x"))


def test_a_model_with_options_loads_in_plain_timm(models: dict[str, nn.Module]) -> None:
    program = (
        "import timm, torch; m = timm.create_model('local-dir:one', pretrained=True).eval()\n"
        "print(sum(p.numel() for p in m.parameters()), m(torch.zeros(1, 3, 32, 32)).tolist()[0][0])"
    )
    shown = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    assert int(shown[0]) == sum(weight.numel() for weight in models["one"].parameters())
    assert float(shown[1]) == pytest.approx(models["one"](torch.zeros(1, 3, 32, 32))[0, 0].item(), abs=1e-5)
    with pytest.raises(UserError, match=r"train.model_options: 'test_resnet' does not take them"):
        create_model("test_resnet", 3, 32, options={"chanels": [8, 8, 8, 8]})
    with pytest.raises(UserError, match=r"train.weights: one cannot start a 'test_resnet' with these options"):
        create_model("test_resnet", 3, 32, weights="one", options={"channels": [8, 8, 8, 8]})
