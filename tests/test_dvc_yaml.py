"""dvc.yaml against the project: one text, the folders that the project says, and what a stage may read."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from dvc.repo import Repo

from selftrain.code import PACKAGE, code_lines
from selftrain.plumbing.by_name import known_modules
from selftrain.project import PIPELINES, Project, all_pipelines
from tests.repository import ROOT

TEXT = (PACKAGE / "templates" / "stages.yaml").read_text()


def stages() -> dict[str, tuple[str, set[str], set[str]]]:
    """Every stage's command, its dependencies and its outputs, as DVC resolves them."""
    with Repo(str(ROOT)) as repo:
        return {
            stage.addressing: (
                stage.cmd,
                {str(Path(dep.fs_path).relative_to(ROOT)) for dep in stage.deps if not hasattr(dep, "params")},
                {str(Path(out.fs_path).relative_to(ROOT)) for out in stage.outs},
            )
            for stage in repo.index.stages
        }


STAGES = stages()
ORDERED = sorted(STAGES)


def command_of(cmd: str) -> tuple[str, str | None, Project]:
    """A stage's sub-command, its argument, and the project that it opens."""
    _, command, *words = shlex.split(cmd)
    argument = words[0] if words and not words[0].startswith("--") else None
    return command, argument, Project.open(pipeline=re.search(r"--pipeline (\S+)", cmd)[1])  # type: ignore[index]


@pytest.mark.parametrize(
    "path", ["dvc.yaml", *sorted(str(p.relative_to(ROOT)) for p in ROOT.glob("pipelines/*/dvc.yaml"))]
)
def test_every_dvc_yaml_is_the_one_text_but_for_its_vars(path: str) -> None:
    lines, expected = (ROOT / path).read_text().splitlines(), TEXT.splitlines()
    differ = [(own, text) for own, text in zip(lines, expected, strict=True) if own != text]
    if path == "dvc.yaml":
        assert differ == []
    else:
        (line,) = differ
        assert line[0] == f"vars: [{{root: ../.., params: {path.replace('dvc.yaml', 'params.yaml')}}}]"
        assert line[1].startswith("vars: [")
    assert len(lines) < 200


@pytest.mark.parametrize("name", ORDERED)
def test_a_stage_depends_on_the_code_of_its_command(name: str) -> None:
    cmd, deps, outs = STAGES[name]
    command, argument, project = command_of(cmd)
    code = {dep for dep in deps if dep.startswith("data/code/")}
    if command == "code":
        assert deps == {"src/selftrain"}
        assert outs == {str(project.code)}
        return
    # The card of another pipeline's model is made by this pipeline's code.
    owner = project.code if "--robustness" not in cmd else Project.open(pipeline=cmd.split()[-1]).code
    of_run = f"/{argument}" if command in ("train", "select") else ""
    assert code == {f"{owner}/{command.replace('-', '_')}{of_run}.txt"}


@pytest.mark.parametrize("name", ORDERED)
def test_a_stage_writes_where_the_project_says(name: str) -> None:
    cmd, _, outs = STAGES[name]
    command, argument, project = command_of(cmd)
    if command in ("digits", "shift"):
        assert outs == {shlex.split(cmd)[3]}
        return
    robustness = re.search(r"--robustness (\S+)", cmd)
    folders = {
        "code": project.code,
        "ingest": project.corpus,
        "train": project.models / str(argument),
        "adopt": project.models / str(argument),
        "select": project.selections / str(argument),
        "predict": project.predictions / str(argument),
        "evaluate": project.evaluations / str(argument),
        "review": project.review,
        "report": project.report,
        "best": Project.open(pipeline=robustness[1]).best if robustness else project.best,
        "robustness": project.robustness / str(argument),
        "robustness-figures": project.robustness_figures,
        "footprint": project.footprint,
        "replication-tables": project.replication,
    }
    folder = folders[command]
    assert outs
    assert all(folder == Path(out) or folder in Path(out).parents for out in outs)


def test_no_two_stages_write_the_same() -> None:
    outs = [out for _, _, own in STAGES.values() for out in own]
    assert len(outs) == len(set(outs))


def test_every_pipeline_has_its_stages() -> None:
    for name in all_pipelines():
        project = Project.open(pipeline=name)
        place = "" if project.params_path == Path("params.yaml") else f"{PIPELINES / name}/dvc.yaml:"
        named = {stage.removeprefix(place) for stage in STAGES if stage.startswith(place)}
        assert {f"evaluate@{run}" for run in project.runs} <= named
        assert {f"train@{run.name}" for run in project.rounds} <= named


def test_hidden_truth_reaches_nothing_that_trains() -> None:
    for name, (cmd, deps, _) in STAGES.items():
        if cmd.split()[1] not in ("ingest", "evaluate", "review", "digits", "shift"):
            assert not any(dep.endswith("truth.parquet") or dep in ("data/corpus", "data/digits") for dep in deps), name
    named = [
        f"{package}.{name}"
        for package in ("algorithms", "selection.policies", "images.policies", "evaluation.robustness.suites")
        for name in known_modules(package)
    ]
    assert {"algorithms.uda", "selection.policies.precision", "images.policies.svhn"} <= set(named)
    for command in ("train", "predict", "select", "adopt", "robustness"):
        files = {PACKAGE / line.split()[0] for line in code_lines(command, named)}
        assert PACKAGE / "tables" / "truth.py" not in files
        assert not {file for file in files if "truth.parquet" in file.read_text()}


@pytest.mark.parametrize(
    ("command", "absent"),
    [
        ("code", {"torch", "timm", "mlflow", "fiftyone", "polars"}),
        ("select", {"torch", "timm", "mlflow", "fiftyone", "scipy"}),
        ("evaluate", {"torch", "timm", "mlflow", "fiftyone", "sklearn"}),
        ("review", {"torch", "timm", "mlflow", "fiftyone", "cleanlab"}),
        ("report", {"torch", "timm", "fiftyone"}),
        ("robustness_figures", {"torch", "timm", "fiftyone"}),
        ("replication_tables", {"torch", "timm", "fiftyone", "mlflow"}),
        ("best", {"torch", "timm", "fiftyone", "mlflow"}),
        ("ingest", {"torch", "timm", "mlflow", "fiftyone"}),
    ],
)
def test_light_stages_import_no_heavy_library(command: str, absent: set[str]) -> None:
    files = [line.split()[0] for line in code_lines(command)]
    modules = [f"selftrain.{file.removesuffix('.py').replace('/', '.')}" for file in files if file.endswith(".py")]
    program = f"import sys\nimport {', '.join(modules)}\nprint(*{{name.partition('.')[0] for name in sys.modules}})"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    assert absent & set(loaded) == set()


def test_shipped_params_are_valid() -> None:
    from selftrain.check import check_project

    check_project(Project.open())


def test_the_machine_is_no_dependency_of_any_stage() -> None:
    with Repo(str(ROOT)) as repo:
        names = {
            name for stage in repo.index.stages for dep in stage.deps for name in getattr(dep, "params", None) or []
        }
    assert len(names) > 20
    assert not {name for name in names if name.startswith("hardware")}
