"""The stage ``code``: what each command and run depends on of the program, a file each."""

import shutil

from selftrain.code import code_lines, commands
from selftrain.params.predict import PredictConfig
from selftrain.params.robustness import RobustnessConfig
from selftrain.params.train import phases
from selftrain.project import Project
from selftrain.training.provenance import modules_of


def write_code(project: Project) -> None:
    """Write ``<command>.txt``, ``train/<run>.txt`` and ``select/<round>.txt`` into the project's code folder."""
    files: dict[str, list[str]] = {}
    policies: set[str] = set()
    for run in project.runs.values():
        if run.is_adopted:
            continue
        of_run = modules_of(phases(project.train_config(run.name)).values())
        policies |= {module for module in of_run if module.startswith("images.policies")}
        files[f"train/{run.name}"] = code_lines("train", of_run)
    for round_ in project.rounds:
        files[f"select/{round_.name}"] = code_lines("select", project.select_config(round_.name).modules)
    robustness = project.section("robustness", RobustnessConfig)
    named = {
        "robustness": robustness.modules(robustness.all_suites),
        # A noised teacher augments as it did in its own training.
        "predict": sorted(policies) if project.section("predict", PredictConfig).noise else [],
    }
    for command in commands():
        if command not in ("train", "select"):
            files[command] = code_lines(command, named.get(command, []))
    shutil.rmtree(project.code, ignore_errors=True)
    for name, lines in files.items():
        path = project.code / f"{name}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
