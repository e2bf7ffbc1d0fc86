"""dvc.yaml against the code: what a stage says it depends on is what it imports."""

import ast
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
from dvc.repo import Repo

from tests.repository import ROOT

PACKAGE = ROOT / "src" / "selftrain"
# The package's top level parses, locks, reports and tracks: no result depends on it. All but this one file.
COUNTERS = PACKAGE / "counters.py"


def stages() -> dict[str, tuple[str, set[str]]]:
    """Every stage's command and its dependencies, as DVC resolves them."""
    with Repo(str(ROOT)) as repo:
        return {
            stage.addressing: (stage.cmd, {str(Path(dep.fs_path).relative_to(ROOT)) for dep in stage.deps if dep.fs_path and not hasattr(dep, "params")})
            for stage in repo.index.stages
        }  # fmt: skip


STAGES = stages()


def imported(tree: ast.AST) -> set[str]:
    """Modules of the package that a piece of code imports, wherever in it; not those for type checkers alone."""
    names: set[str] = set()
    nodes = [tree]
    while nodes:
        node = nodes.pop()
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            continue
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("selftrain"):
            names |= {str(node.module), *(f"{node.module}.{alias.name}" for alias in node.names)}
        nodes += list(ast.iter_child_nodes(node))
    return names


@cache
def command_files(command: str) -> frozenset[Path]:
    """Every file of the package that a sub-command imports, directly or through others."""
    nodes = [node for name in ("cli.py", "cli_results.py") for node in ast.parse((PACKAGE / name).read_text()).body]
    (function,) = [
        node for node in nodes if isinstance(node, ast.FunctionDef) and node.name == command.replace("-", "_")
    ]
    todo, files = list(imported(function)), set()
    while todo:
        file = (ROOT / "src" / Path(*todo.pop().split("."))).with_suffix(".py")
        if file.exists() and file not in files:
            files.add(file)
            todo += imported(ast.parse(file.read_text()))
    return frozenset(file for file in files if file.parent != PACKAGE or file == COUNTERS)


@pytest.mark.parametrize("name", sorted(STAGES))
def test_code_dependencies_are_what_the_stage_imports(name: str) -> None:
    command, deps = STAGES[name]
    code = {ROOT / dep for dep in deps if dep.startswith("src/") and not dep.endswith(".md")}
    used = set(command_files(command.split()[1]))
    if command.split()[1] == "train":
        # Later phases may be supervised.
        shared = {
            PACKAGE / "algorithms" / name for name in ("feedback.py", "losses.py", "soft_targets.py", "supervised.py")
        }
        algorithms = {dep for dep in code if dep.parent.name == "algorithms"} - used
        assert len(algorithms - shared) <= 1, "the run's own algorithm, which is found by name"
        assert shared <= algorithms
        used |= algorithms
    covered = {file for file in used if any(file == dep or dep in file.parents for dep in code)}
    assert used - covered == set(), "imported, but not a dependency in dvc.yaml"
    idle = {dep for dep in code if not any(file == dep or dep in file.parents for file in used)}
    assert idle == set(), "a dependency in dvc.yaml, but not imported"


def test_hidden_truth_reaches_nothing_that_trains() -> None:
    for name, (command, deps) in STAGES.items():
        if command.split()[1] not in ("ingest", "evaluate", "review", "digits", "shift"):
            assert not any(
                dep.endswith("truth.parquet") or dep == "data/corpus" or dep == "data/digits" for dep in deps
            ), name
    for command in ("train", "predict", "select"):
        assert PACKAGE / "corpus" / "truth.py" not in command_files(command)
        assert not {file for file in command_files(command) if "truth.parquet" in file.read_text()}


@pytest.mark.parametrize(
    ("command", "absent"),
    [
        ("select", {"torch", "timm", "mlflow", "fiftyone", "scipy"}),
        ("evaluate", {"torch", "timm", "mlflow", "fiftyone", "sklearn"}),
        ("review", {"torch", "timm", "mlflow", "fiftyone", "cleanlab"}),
        ("report", {"torch", "timm", "fiftyone"}),
        ("robustness-figures", {"torch", "timm", "fiftyone"}),
        ("replication-tables", {"torch", "timm", "fiftyone", "mlflow"}),
        ("best", {"torch", "timm", "fiftyone", "mlflow"}),
        ("ingest", {"torch", "timm", "mlflow", "fiftyone"}),
    ],
)
def test_light_stages_import_no_heavy_library(command: str, absent: set[str]) -> None:
    modules = [
        ".".join(file.relative_to(ROOT / "src").with_suffix("").parts) for file in sorted(command_files(command))
    ]
    program = f"import sys\nimport {', '.join(modules)}\nprint(*{{name.partition('.')[0] for name in sys.modules}})"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    assert absent & set(loaded) == set()


def test_shipped_params_are_valid() -> None:
    from selftrain.params import check_params

    check_params(ROOT / "params.yaml")


@pytest.mark.parametrize("command", ["train", "predict"])
def test_results_are_stamped_with_the_code_that_dvc_watches(command: str) -> None:
    from selftrain.predictions import predict
    from selftrain.training import provenance

    stamped = set({"train": provenance.CODE, "predict": (*predict.CODE, *predict.NOISE_CODE)}[command])
    for name, (cmd, deps) in STAGES.items():
        # The pipelines watch whole folders.
        if cmd.split()[1] == command and not name.startswith("pipelines/"):
            watched = {dep.removeprefix("src/selftrain/") for dep in deps if dep.startswith("src/")}
            own = {dep for dep in watched if dep.startswith("algorithms/")} - {
                "algorithms/algorithm.py",
                "algorithms/feedback.py",
                "algorithms/losses.py",
                "algorithms/soft_targets.py",
            }
            assert watched - own == stamped, name


def test_robustness_tables_are_stamped_with_the_code_that_makes_them() -> None:
    from selftrain.evaluation.robustness.suites import CODE

    assert {PACKAGE / file for file in CODE} == command_files("robustness")
