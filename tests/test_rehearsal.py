"""Every preset's whole graph, with tiny networks on made-up images; and what is found by it."""

import copy
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from selftrain.cli import results, stages  # noqa: F401, they add their commands to the app
from selftrain.cli.app import app
from selftrain.plumbing.errors import UserError
from selftrain.plumbing.sections import load_params
from selftrain.rehearsal import rehearse as rehearse_module
from selftrain.rehearsal.rehearse import rehearse
from selftrain.rehearsal.tiny import largest_size, tiny
from tests.repository import ROOT, copy_of_repository

MAIN = "noisy_student"
FOLDERS = ROOT / "pipelines"
PRESETS = {path.parent.name: load_params(path) for path in FOLDERS.glob("*/paper.yaml")}
OTHERS = [
    path
    for path in sorted(FOLDERS.glob("*/*.yaml"))
    if path.name not in ("dvc.yaml", "params.yaml", "paper.yaml", "studies.yaml") or path.parent.name == "cifar10_4k"
]


def rehearsed(pipelines: dict[str, Any], wanted: str, main: str = MAIN) -> list[str]:
    text = (ROOT / "dvc.yaml").read_text()
    return rehearse(pipelines, main, wanted, text, lambda words: app(words, standalone_mode=False))


def all_presets() -> dict[str, Any]:
    return {values["pipeline"]: copy.deepcopy(values) for name, values in PRESETS.items() if name != "cifar10_4k"}


def presets_for(pipeline: str) -> dict[str, Any]:
    """A pipeline's, and those whose models it tests."""
    presets = all_presets()
    tested = {model.partition("/")[0] for model in presets[pipeline]["tested"].values()}
    if pipeline == "choosing":  # twenty models in the same suites
        presets[pipeline]["tested"] = dict(list(presets[pipeline]["tested"].items())[:2])
    return {name: values for name, values in presets.items() if name in {MAIN, pipeline, *tested}}


@pytest.mark.slow
@pytest.mark.parametrize("pipeline", sorted(all_presets()))
def test_every_stage_of_a_preset_runs(pipeline: str) -> None:
    commands = rehearsed(presets_for(pipeline), pipeline)
    own = [command for command in commands if f"--pipeline {pipeline}" in command]
    assert len(own) >= 4 + len(PRESETS[pipeline]["runs"])
    for run in PRESETS[pipeline]["runs"]:
        assert f"selftrain evaluate {run} --pipeline {pipeline}" in own


@pytest.mark.slow
@pytest.mark.parametrize("preset", OTHERS, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_every_stage_of_the_other_presets_runs(preset: Path) -> None:
    values = load_params(preset)
    if preset.name == "model_size.yaml":  # eight times the same
        for section in ("supervised", "rounds"):
            values[section] = {run: entry for run, entry in values[section].items() if run.startswith(("b0", "b7"))}
        values["runs"] = [*values["supervised"], *values["rounds"]]
    pipelines = {MAIN: all_presets()[MAIN]} | {values["pipeline"]: values}
    main = MAIN if values["pipeline"] in all_presets() else values["pipeline"]
    assert len(rehearsed(pipelines if main == MAIN else {main: values}, values["pipeline"], main)) >= 8


@pytest.mark.slow
def test_runs_of_different_sizes_are_found_before_hours_are_spent() -> None:
    presets = presets_for("robustness")
    presets["robustness"]["tested"] = {name: f"{MAIN}/{name}" for name in ("teacher", "student1")}
    presets["robustness"]["robustness"]["suites"] = ["adversarial"]
    del presets["robustness"]["robustness"]["image_size"]
    with pytest.raises(UserError, match=r"`selftrain robustness-figures .*` would fail: .*size"):
        rehearsed(presets, "robustness")


@pytest.mark.slow
def test_nothing_outside_is_touched_and_other_programs_are_not_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main = all_presets()[MAIN]
    main["rounds"] = {}
    main["runs"] = ["teacher", "weights"]
    main["teachers"] = {"weights": {"models": [str(tmp_path / "nas" / "teacher")]}}
    main["robustness"] = {"folders": {"model": str(tmp_path / "a")}, "corruptions_folder": str(tmp_path / "c")}
    main["tested"] = {"model": f"{MAIN}/teacher"}
    main["robustness"] |= {"suites": ["corruptions"], "reference": "model"}
    main["stages"]["robustness_figures"] = [MAIN]
    text = (ROOT / "dvc.yaml").read_text() + "\n  prepare: {cmd: [python prepare.py, touch x], outs: [data/raw]}\n"
    commands = rehearse({MAIN: main}, MAIN, MAIN, text, lambda words: app(words, standalone_mode=False))
    assert "selftrain adopt weights --pipeline noisy_student" in commands
    assert "selftrain robustness model --pipeline noisy_student" in commands
    assert "left out, since it is none of selftrain's: python prepare.py" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(UserError, match=r"dvc.yaml: there is no line `vars"):
        rehearse({MAIN: main}, MAIN, MAIN, text.replace("vars:", "variables:"), lambda words: None)


@pytest.mark.slow
def test_a_policy_that_untrained_networks_cannot_satisfy_stops_no_rehearsal(monkeypatch: pytest.MonkeyPatch) -> None:
    whole, anything = rehearse_module._select_anything, []

    def selected_anything(words: list[str], *others: Any) -> None:
        anything.append(words[2])
        whole(words, *others)

    monkeypatch.setattr(rehearse_module, "_select_anything", selected_anything)
    main = all_presets()[MAIN]
    main["select"] = {"policy": "precision", "precision": 0.99, "gate": 0.05}
    main["predict"]["embeddings"] = True
    main["train"]["head"] = "linear_probe"
    for entry in main["rounds"].values():
        entry["train"]["then"] = {}
    commands = rehearsed({MAIN: main}, MAIN)
    assert commands[-1].startswith("selftrain ")
    assert anything, "some round finds no label good enough"


def test_tiny_parameters_keep_what_matters() -> None:
    preset = load_params(FOLDERS / "noisy_student" / "paper.yaml")
    made = tiny(preset, largest_size([preset]))
    student = made["rounds"]["student1"]["train"]
    assert student["algorithm"] == preset["rounds"]["student1"]["train"]["algorithm"]
    assert made["train"]["noise"] == preset["train"]["noise"]
    sizes = (made["train"]["image_size"], student["image_size"], student["then"]["resolution_fix"]["image_size"])
    assert sizes == (24, 19, 32), "600, 475 and 800 in proportion"
    robustness = load_params(FOLDERS / "robustness" / "paper.yaml")
    assert largest_size([robustness]) == 224
    assert tiny(robustness, largest_size([preset, robustness]))["robustness"]["image_size"] == 16, "below the networks'"
    assert made["train"]["steps"] == student["then"]["resolution_fix"]["steps"] == 2
    assert "epochs" not in made["train"]
    assert student["unlabeled_ratio"] == 2
    ensemble = tiny({"ensembles": {"two": {"models": ["a", "b"], "weights": [2, 1]}}}, 32)
    assert ensemble["ensembles"]["two"]["weights"] == [2, 1]


def test_pipelines_that_are_needed_are_those_of_others_models_too() -> None:
    pipelines: dict[str, dict[str, Any]] = {
        "a": {"tested": {"student": "b/student1"}},
        "b": {"teachers": {"from_elsewhere": {"models": ["models/c/best", "/nas/d"]}}, "tested": {"own": "b/teacher"}},
        "c": {"ensembles": {"two": {"models": ["models/a/one", "models/c/two"]}}},
        "e": {},
    }
    needed = {name: rehearse_module._needed(pipelines, name) for name in pipelines}
    assert needed == {"a": {"a", "b", "c"}, "b": {"a", "b", "c"}, "c": {"a", "b", "c"}, "e": {"e"}}


@pytest.mark.slow
def test_the_command_leaves_nothing_behind(tmp_path: Path) -> None:
    project = copy_of_repository(tmp_path / "project")
    params = load_params(project.folder / "params.yaml")
    params["supervised"] = {"teacher": params["supervised"]["teacher"]}
    params["rounds"] = {"student1": params["rounds"]["student1"]}
    params["runs"] = ["teacher", "student1"]
    (project.folder / "params.yaml").write_text(yaml.safe_dump(params))
    (tmp_path / "tmp").mkdir()
    project.environment["TMPDIR"] = str(tmp_path / "tmp")
    project.run("git", "init", "-q")
    project.run("dvc", "init", "-q")
    project.run("git", "add", "-A")
    project.run("git", "commit", "-q", "-m", "start")
    before = {path for path in project.folder.rglob("*") if ".git" not in path.parts}
    # A rehearsal waits for no other machine.
    project.environment |= {"SELFTRAIN_HARDWARE": "engine=torchrun nodes=2 rendezvous=127.0.0.1:1"}
    said = project.run(sys.executable, "-m", "selftrain", "check", "--dry-run")
    assert "selftrain train student1 --pipeline noisy_student" in said
    assert "stages ran with tiny networks on made-up images" in said
    left = {path for path in project.folder.rglob("*") if ".git" not in path.parts} - before
    assert not [path for path in left if "__pycache__" not in path.parts and ".dvc" not in path.parts]
    assert project.run("git", "status", "--short") == ""
    assert not list((tmp_path / "tmp").glob("rehearsal-*"))
