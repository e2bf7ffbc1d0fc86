"""``selftrain check --dry-run``: a project's stages, one after the other, in a folder that is thrown away."""

import contextlib
import io
import os
import re
import shlex
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from selftrain.params.robustness import RobustnessConfig
from selftrain.plumbing.dvc_state import make_dvc_folder, stage_commands
from selftrain.plumbing.errors import UserError
from selftrain.plumbing.files import read_json, write_json
from selftrain.plumbing.hardware import HARDWARE_HERE
from selftrain.plumbing.tracking import TRACKING_URI
from selftrain.project import PARAMS, PIPELINES, Project, all_pipelines
from selftrain.rehearsal.made_up import write_corpus, write_corrupted_folder, write_labeled_folder, write_model
from selftrain.rehearsal.tiny import LARGEST, largest_size, tiny
from selftrain.selection.select import NothingSelected
from selftrain.tables.corrections import no_corrections, write_corrections

Run = Callable[[list[str]], None]
"""Runs a command of the command line by its words."""
FAILURES = (UserError, RuntimeError, OSError, ValueError, TypeError, LookupError, SystemExit)
MADE_HERE = ("code", "installed_code", "digits", "shift", "ingest")
"""Stages whose results are made up."""


def rehearse_project(project: Project, run: Run) -> list[str]:
    """``rehearse`` a pipeline, among the others of its project."""
    main, *others = all_pipelines(project.root)
    pipelines = {name: Project.open(project.root, name).values for name in (main, *others)} | {
        project.name: project.values
    }
    return rehearse(pipelines, main, project.name, (project.root / "dvc.yaml").read_text(encoding="utf-8"), run)


def rehearse(pipelines: Mapping[str, Mapping[str, Any]], main: str, wanted: str, stages: str, run: Run) -> list[str]:
    """Run every stage of the pipeline ``wanted``, and those of other pipelines that it needs; return the commands.

    ``pipelines`` are the parameters of all by name, ``main`` is the root's; ``stages`` is the text of a dvc.yaml.
    Raises UserError naming the command that would fail.
    """
    largest = largest_size(pipelines[name] for name in _needed(pipelines, wanted))
    with _empty_project():
        for name, values in pipelines.items():
            _write_pipeline(name, tiny(values, largest), stages, is_main=name == main)
        with contextlib.redirect_stdout(io.StringIO()):
            make_dvc_folder()
            commands = stage_commands(Path() if wanted == main else PIPELINES / wanted, MADE_HERE)
            commands, others = _ours(commands)
            used = {words[words.index("--pipeline") + 1] for words in map(shlex.split, commands)}
            projects = [Project.open(pipeline=name) for name in pipelines if name in used]
            _make_up(projects, commands)
        for command in others:
            print(f"left out, since it is none of selftrain's: {command}")
        for command in commands:
            print(command)
            try:
                # What tiny networks have to say is of no interest.
                with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
                    try:
                        run(shlex.split(command)[1:])
                    except NothingSelected:
                        _select_anything(shlex.split(command), projects, run)
            except FAILURES as error:
                raise UserError(f"`{command}` would fail: {error or type(error).__name__}") from error
    return commands


def _needed(pipelines: Mapping[str, Mapping[str, Any]], wanted: str) -> set[str]:
    """The pipeline, those whose models it tests or learns from, and those that they need."""
    found, new = set[str](), {wanted}
    while new:
        found |= new
        new = {other for name in new for other in _read_by(pipelines[name])} & pipelines.keys() - found
    return found


def _read_by(values: Mapping[str, Any]) -> set[str]:
    """The pipelines, or folders beside them, whose models a pipeline tests or learns from."""
    return {model.removeprefix("models/").partition("/")[0] for model in _models_of(values)}


def _models_of(values: Mapping[str, Any]) -> list[str]:
    """The folders of the models that a pipeline tests or learns from and that are not its own runs."""
    entries = [entry for section in ("teachers", "ensembles") for entry in (values.get(section) or {}).values()]
    tested = [f"models/{model}" for model in (values.get("tested") or {}).values()]
    return [*(model for entry in entries for model in entry["models"]), *tested]


def _ours(commands: list[str]) -> tuple[list[str], list[str]]:
    """The commands that are this program's on a pipeline, and all others."""
    ours = [command for command in commands if command.startswith("selftrain ") and " --pipeline " in command]
    return ours, [command for command in commands if command not in ours]


def _write_pipeline(name: str, values: Mapping[str, Any], stages: str, is_main: bool) -> None:
    folder = Path() if is_main else PIPELINES / name
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / PARAMS, values)
    own = f"vars: [{{root: {'.' if is_main else '../..'}, params: {folder / PARAMS}}}]\n"
    text, count = re.subn(r"^vars:.*\n(?:[ -].*\n)*", own, stages, flags=re.MULTILINE)
    if count != 1:
        raise UserError("dvc.yaml: there is no line `vars: [{root: …, params: …}]`; `selftrain new` writes one")
    (folder / "dvc.yaml").write_text(text, encoding="utf-8")


@contextlib.contextmanager
def _empty_project() -> Iterator[None]:
    """A folder in which the working directory and MLflow are while it lasts, on this machine alone."""
    with tempfile.TemporaryDirectory(prefix="rehearsal-") as name:
        settings = {TRACKING_URI: f"sqlite:///{name}/mlflow.db", HARDWARE_HERE: ""}
        before = {setting: os.environ.get(setting) for setting in settings}
        os.environ.update(settings)
        try:
            with contextlib.chdir(name):
                yield
        finally:
            for setting, value in before.items():
                os.environ.pop(setting)
                if value is not None:
                    os.environ[setting] = value


def _make_up(projects: list[Project], commands: list[str]) -> None:
    """Corpora, people's corrections, and what the pipelines name that none of their stages makes."""
    for number, corpus in enumerate({project.corpus for project in projects}):
        write_corpus(corpus, Path(f"images{number}").resolve())
    made = {
        Path("models") / words[words.index("--pipeline") + 1] / ("best" if words[1] == "best" else words[2])
        for words in map(shlex.split, commands)
    }
    for project in projects:
        if not project.corrections.exists():
            write_corrections(project.corrections, no_corrections())
        for model in map(Path, _models_of(project.values)):
            if model not in made and not model.exists():
                write_model(model, LARGEST)
        robustness = project.section("robustness", RobustnessConfig)
        for folder in robustness.folders.values():
            write_labeled_folder(Path(folder))
        if robustness.corruptions_folder is not None:
            write_corrupted_folder(Path(robustness.corruptions_folder))


def _select_anything(words: list[str], projects: list[Project], run: Run) -> None:
    """Select once more, whatever there is: networks that know nothing may satisfy no policy."""
    project = next(project for project in projects if project.name == words[words.index("--pipeline") + 1])
    values = read_json(project.params_path, "selftrain check")
    anything = {"policy": "threshold", "threshold": 0.0, "per_class": "all", "gate": None, "prior": None, "share": 1}
    values["rounds"][words[2]]["select"] = anything
    write_json(project.params_path, values)
    run(words[1:])
