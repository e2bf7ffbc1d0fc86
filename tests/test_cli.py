"""The command line as a user meets it: what there is, and what mistakes say."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from selftrain.__main__ import main
from tests.repository import ROOT


def run(folder: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    environment = os.environ | {"COLUMNS": "200", "TERM": "dumb"}
    return subprocess.run(
        [sys.executable, "-m", "selftrain", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )


def shipped_params(folder: Path, *path: str, value: Any = None) -> None:
    """The shipped params.yaml with one value replaced."""
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    section = params
    for name in path[:-1]:
        section = section[name]
    if path:
        section[path[-1]] = value
    (folder / "params.yaml").write_text(yaml.safe_dump(params))


def run_here(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str
) -> "subprocess.CompletedProcess[str]":
    """The same in this process, which has PyTorch and timm already."""
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "argv", ["selftrain", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    return subprocess.CompletedProcess(arguments, ended.value.code, *capsys.readouterr())


def one_line(result: "subprocess.CompletedProcess[str]") -> str:
    assert result.returncode == 1
    assert "Traceback" not in result.stderr
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 1, result.stderr
    return lines[0]


def test_the_commands_that_there_are() -> None:
    shown = run(ROOT, "--help").stdout
    names = [
        "digits",
        "ingest",
        "train",
        "predict",
        "select",
        "evaluate",
        "report",
        "summary",
        "mlflow",
        "browse",
        "check",
        "review",
        "best",
        "diff",
        "lineage",
        "corrections",
        "export",
        "register",
    ]
    assert [name for name in names if f" {name} " not in shown] == []


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("trian",), {}, "params.yaml: trian: unknown section; did you mean 'train'?"),
        (("train", "lerning_rate"), 1, "params.yaml: train.lerning_rate: unknown parameter; did you mean 'learning_rate'?"),
        (("train", "noise", "flip"), 2, "params.yaml: train.noise.flip: Input should be less than or equal to 1 (got 2)"),
        (("train", "batch_size"), "many", "train.batch_size: Input should be a valid integer"),
        (("rounds", "student2", "teacher"), "student9", "rounds.student2.teacher: there is no other run 'student9'; did you mean 'student"),
        (("rounds", "student1", "select"), {"threshold": 1.5}, "rounds.student1.select.threshold: Input should be less than 1 (got 1.5)"),
        (("ingest", "test"), {}, "ingest.test: give either `images` (paths) or `cut_from` with `share`"),
        (("seed",), -1, "params.yaml: seed: expected a whole number"),
        (("hardware", "workers"), "some", "hardware.workers"),
        (("hardware", "processes"), 0, "hardware.processes"),
        (("train", "noise", "random_crop"), [-1, 0], "params.yaml: train.noise.random_crop.0"),
        (("train", "noise", "random_crop"), [1, 0.5], "`random_crop` is [smallest, largest]"),
        (("select", "per_class"), 0, "params.yaml: select.per_class"),
        (("rounds",), ["a"], "params.yaml: rounds: expected a mapping of runs, found ['a']"),
        (("rounds", "a b; x"), {}, "params.yaml: rounds: 'a b; x' cannot name a run"),
        (("rounds", 1), {}, "params.yaml: rounds: 1 cannot name a run"),
        ((1,), {}, "params.yaml: 1 is no section's name"),
        (("rounds", "student1", "teacher"), "student3", "student1 ← student3 ← student2 ← student1 goes in a circle"),
        (("supervised", "teacher", "train", "algorithm", "name"), "supervisd", "there is no algorithm 'supervisd'; did you mean 'supervised'?"),
        (("supervised", "teacher", "train", "algorithm", "name"), "noisy_student", "supervised.teacher: noisy_student needs unlabeled images; put the run under `rounds`"),
        (("rounds", "student2", "train", "algorithm"), {"name": "noisy_student", "lables": "soft"}, "rounds.student2: train.algorithm (noisy_student).lables: unknown parameter; did you mean 'labels'?"),
        (("rounds", "student3", "train", "model"), "resnet1O1", "rounds.student3.train.model: timm knows no model 'resnet1O1'; did you mean 'resnet101'?"),
        (("train", "optimizer"), "adamww", "train.optimizer: timm knows no optimizer 'adamww'; did you mean 'adamw"),
        (("ingest", "root"), "data/photoz", "ingest.root: there is no folder data/photoz"),
        (("corpus",), "/data", "params.yaml: corpus: expected a path inside the project"),
        (("pipeline",), "My photos", "params.yaml: pipeline: String should match pattern"),
        (("runs",), ["teacher"], "params.yaml: runs: 'labeled_only' is a run but not in the list; add it"),
        (("runs",), ["taecher"], "params.yaml: runs: there is no run 'taecher'; take it out of the list, or did you mean 'teacher'?"),
        (("stages", "results"), ["other"], "params.yaml: stages.results: expected [] or [noisy_student], found ['other']"),
        (("stages", "code"), [], "params.yaml: stages: give either `code` or `installed_code`"),
        (("stages",), {}, "params.yaml: stages.code: missing; it has no default"),
        (("select", "policy"), "treshold", "rounds.student1.select.policy: there is no 'treshold'; did you mean 'threshold'?"),
        (("train", "weights"), "tim", "supervised.labeled_only.train.weights: 'tim' is nothing to start from; give `timm`"),
        (("train", "weights"), "data/w.safetensors", "train.weights: 'data/w.safetensors' is nothing to start from"),
        (("train", "weights"), "package", "no package holds weights of 'test_resnet'"),
        (("review",), False, "params.yaml: review: expected a mapping of parameters, found False"),
        (("select",), [], "params.yaml: select: expected a mapping of parameters, found []"),
        (("train", "batch_size"), True, "train.batch_size: expected no `true` here"),
        (("train", "learning_rate"), float("inf"), "train.learning_rate: Input should be a finite number"),
        (("hardware", "device"), "gpu", "hardware.device: String should match pattern"),
        (("tested",), {"a b; x": "noisy_student/student1"}, "tested: 'a b; x' cannot name a model"),
        (("tested",), {"a": "noisy_student/studnet1"}, "tested.a: there is no model 'noisy_student/studnet1'; did you mean 'noisy_student/student1'?"),
        (("tested",), {"a": "noisy_student/student1"}, "robustness.reference: there is no 'teacher' under `tested`"),
        (("stages", "card"), ["noisy_studnet"], "stages.card: there is no pipeline 'noisy_studnet'; did you mean 'noisy_student'?"),
        (("stages", "digits"), ['data/"x"; y'], "stages.digits.0: a stage's command cannot have a path with"),
        (("predict", "embeddings"), False, "rounds.student1.select.gate: it needs embeddings; set `predict.embeddings: true`"),
        (("supervised", "labeled_only", "select"), {"treshold": 9}, "supervised.labeled_only.select: only rounds have one"),
        (("supervised", "labeled_only", "teacher"), "student1", "supervised.labeled_only.teacher: only rounds have one"),
        (("supervised", "labeled_only", "train", "resplit"), {"splits": ["labeled", "test"], "validation": 0.2}, "supervised.labeled_only.train.resplit: a run that reads test images stands under `leaky`"),
        (("robustness",), {"randaugment_policy": "fulll"}, "params.yaml: robustness.randaugment_policy: there is no 'fulll'; did you mean 'full'?"),
        (("train", "noise", "randaugment_policy"), "shvn", "train.noise.randaugment_policy: there is no 'shvn'; did you mean 'svhn'?"),
    ],
)  # fmt: skip
def test_mistakes_in_params_are_one_line(
    tmp_path: Path,
    path: tuple[str, ...],
    value: Any,
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    shipped_params(tmp_path, *path, value=value)
    assert message in one_line(run_here(tmp_path, monkeypatch, capsys, "check"))


def test_what_a_file_names_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    params["teachers"] = {"other": {"models": ["models/noisy_student/labeled_only"]}}
    params["runs"].append("other")
    params["tested"] = {"other": "noisy_student/other", "best": "noisy_student/best"}
    params["robustness"] = {"reference": "other", "folders": {"hard": "data/hard"}}
    path = tmp_path / "params.yaml"
    path.write_text(yaml.safe_dump(params))
    assert "robustness.folders.hard: there is no data/hard" in one_line(
        run_here(tmp_path, monkeypatch, capsys, "check")
    )
    (tmp_path / "data" / "hard").mkdir(parents=True)
    assert run_here(tmp_path, monkeypatch, capsys, "check").returncode == 0, "what stages make has not to be there"
    params["teachers"]["other"]["models"] = ["models/elsewhere/typo"]
    path.write_text(yaml.safe_dump(params))
    told = one_line(run_here(tmp_path, monkeypatch, capsys, "check"))
    assert "teachers.other.models: there is no models/elsewhere/typo" in told


def test_what_a_policy_does_not_read_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shipped_params(tmp_path, "rounds", "student1", "select", value={"policy": "precision", "threshold": 0.9})
    said = run_here(tmp_path, monkeypatch, capsys, "check").stdout
    assert (
        "note: params.yaml: rounds.student1.select.threshold: the policy 'precision' does not read it, but `precision`"
        in said
    )
    assert said.count("note: ") == 1


def test_a_run_that_says_how_long_it_is_says_it_all(tmp_path: Path) -> None:
    from selftrain.params.runs import train_config

    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    params["train"] |= {"steps": None, "epochs": 30}
    assert train_config(params, "teacher", "p").steps == 150
    assert train_config(params, "teacher", "p").epochs is None
    assert train_config(params, "student1", "p").total_steps(10) == 300


def test_shipped_params_pass(tmp_path: Path) -> None:
    shipped_params(tmp_path)
    assert run(tmp_path, "check").returncode == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("check", "--params", "other.yaml"), "other.yaml: no such file"),
        (("ingest",), "data/digits: no such folder; correct `ingest.root` in params.yaml"),
        (("summary",), "evaluation/noisy_student: nothing evaluated there yet; run `dvc repro`"),
        (
            ("diff", "student1", "student2"),
            "selections/noisy_student/student2: no selection there; `dvc repro` makes them",
        ),
        (("lineage", "models/best"), "models/best: no run.json there, so not a model that a run made"),
        (
            ("export", "--out", "x"),
            "models/noisy_student/best: holds no model, which has a config.json; `dvc repro` makes those of the runs",
        ),
        (("register", "n"), "models/noisy_student/best/run.json: no such file; `dvc repro` makes it"),
        (("browse",), "no run of this pipeline has predictions yet"),
        (("select", "student1"), "data/corpus/duplicates.parquet: no such file"),
        (("select", "student7"), "there is no round 'student7'"),
        (("train", "studnet1"), "there is no run 'studnet1'; did you mean 'student1'?"),
        (("report",), "evaluation/noisy_student: nothing evaluated there yet"),
        (
            ("train", "teacher", "--pipeline", "noisy_studnet"),
            "there is no pipeline 'noisy_studnet'; did you mean 'noisy_student'?",
        ),
        (("robustness", "teacher"), "params.yaml: tested: there is no 'teacher'"),
    ],
)
def test_missing_things_are_one_line(
    tmp_path: Path,
    arguments: tuple[str, ...],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    shipped_params(tmp_path)
    assert message in one_line(run_here(tmp_path, monkeypatch, capsys, *arguments))


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("supervised", "teacher", "train", "algorithm", "name"), "superwised", "there is no algorithm 'superwised'; did you mean 'supervised'?"),
        (("supervised", "teacher", "train", "algorithm", "smoothing"), 1, "train.algorithm (supervised).smoothing: unknown parameter"),
        (("supervised", "teacher", "train", "unlabeled_ratio"), 2, "supervised uses no unlabeled images; set it to 0"),
    ],
)  # fmt: skip
def test_mistakes_in_a_run_are_one_line(tmp_path: Path, path: tuple[str, ...], value: Any, message: str) -> None:
    shipped_params(tmp_path, *path, value=value)
    assert message in one_line(run(tmp_path, "train", "teacher"))


def test_debug_shows_where_an_error_comes_from(tmp_path: Path) -> None:
    result = run(tmp_path, "check", "--debug")
    assert result.returncode == 1
    assert "Traceback" in result.stderr
    assert "load_params" in result.stderr


@pytest.mark.parametrize(("content", "stays"), [("", False), ("{half", False), ("{}", True), (None, False)])
def test_check_mends_the_lock_file_of_a_killed_dvc(tmp_path: Path, content: str | None, stays: bool) -> None:
    shipped_params(tmp_path)
    lock = tmp_path / ".dvc" / "tmp" / "rwlock"
    lock.parent.mkdir(parents=True)
    if content is not None:
        lock.write_text(content)
    result = run(tmp_path, "check")
    assert result.returncode == 0
    assert lock.exists() == stays
    assert ("removed; a killed DVC left it half-written" in result.stdout) == (content is not None and not stays)
