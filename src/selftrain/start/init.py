"""The command ``init``: a project of the user's own, in a new folder or in a repository that is there."""

import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from selftrain.code import PACKAGE
from selftrain.plumbing.errors import UserError, one_line
from selftrain.start.look import CUT, Seen, fit, look
from selftrain.tables.corrections import no_corrections, write_corrections

TEMPLATES = PACKAGE / "templates"
WRITTEN = ("params.yaml", "dvc.yaml", "corrections.parquet")


def init(
    project: Path,
    labeled: Path,
    pool: Path,
    validation: Path | None = None,
    test: Path | None = None,
    model: str | None = None,
) -> Seen:
    """Write a project for these images, and set up git and DVC where they are not; return what was seen.

    Raises UserError for folders that cannot be used, and if the project has files of these names already.
    """
    for name in WRITTEN:
        if (project / name).exists():
            raise UserError(f"{project / name}: is there already; init writes new projects only")
    seen = look(project, labeled, pool, validation, test)
    project.mkdir(parents=True, exist_ok=True)
    # First: what fails here can be mended and repeated, since none of the files is there yet.
    _set_up_git_and_dvc(project)
    for name in ("gitignore", "dvcignore"):
        _add_lines(project / f".{name}", (TEMPLATES / name).read_text(encoding="utf-8").splitlines())
    (project / "params.yaml").write_text(params_text(project, seen, model), encoding="utf-8")
    (project / "dvc.yaml").write_text(stages_text("params.yaml", "."), encoding="utf-8")
    write_corrections(project / "corrections.parquet", no_corrections())
    return seen


def params_text(project: Path, seen: Seen, model: str | None) -> str:
    """params.yaml for what was seen."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES), undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True,
        keep_trailing_newline=True,
    )  # fmt: skip
    few = ", ".join(seen.classes[:6]) + (f" and {len(seen.classes) - 6} more" if len(seen.classes) > 6 else "")
    paths = {name: _as_yaml(getattr(seen, name)) for name in ("root", "labeled", "pool", "validation", "test")}
    name = re.sub(r"[^a-z0-9_-]+", "_", project.resolve().name.lower()).strip("_") or "selftrain"
    values: Mapping[str, Any] = {
        **vars(seen),
        **vars(fit(seen, model)),
        "cut": CUT,
        **paths,
        "class_words": " ".join(few.split()),
        "dataset": _as_yaml(name),
    }
    return environment.get_template("params.yaml.jinja").render(values)


def stages_text(params: str, root: str) -> str:
    """The stages of every pipeline, for a params file and the way from its folder to the project's root."""
    text = (TEMPLATES / "stages.yaml").read_text(encoding="utf-8")
    line = f"vars: [{{root: {root}, params: {params}}}]"
    return re.sub(r"^vars: .*$", lambda _: line, text, count=1, flags=re.MULTILINE)


def _as_yaml(text: str | None) -> str | None:
    """Text as a YAML value, quoted where it must be."""
    from ruamel.yaml import YAML
    from ruamel.yaml.compat import StringIO

    if text is None:
        return None
    out = StringIO()
    yaml = YAML(typ="safe", pure=True)
    yaml.width = 10**6
    yaml.dump([text], out)
    return str(out.getvalue().strip().removeprefix("[").removesuffix("]").removeprefix("- "))


def _add_lines(path: Path, lines: list[str]) -> None:
    """Add the lines that a file does not have yet."""
    # In whatever encoding the user's lines are, they stay as they are.
    there = path.read_bytes().splitlines() if path.exists() else []
    missing = [line.encode() for line in lines if line.encode() not in there]
    if missing:
        path.write_bytes(b"\n".join([*there, *missing]) + b"\n")


def _set_up_git_and_dvc(project: Path) -> None:
    if not _trouble(project, "git", "rev-parse", "--is-inside-work-tree"):
        top = subprocess.run(
            ["git", "rev-parse", "--show-toplevel"], cwd=project, capture_output=True, text=True, check=True
        ).stdout.strip()
        below = Path(top).resolve() != project.resolve()
    else:
        if trouble := _trouble(project, "git", "init", "--quiet"):
            raise UserError(f"{project}: git cannot set up a repository there ({trouble}); mend it and run it again")
        below = False
    if not (project / ".dvc").is_dir():
        dvc = [sys.executable, "-m", "dvc", "init", *(["--subdir"] if below else [])]
        if trouble := _trouble(project, *dvc):
            raise UserError(f"{project}: `dvc init` cannot set it up ({trouble}); mend it and run it again")
        _trouble(project, sys.executable, "-m", "dvc", "config", "core.analytics", "false")


def _trouble(folder: Path, *command: str) -> str:
    """What a command says that fails; empty if it ends well."""
    try:
        ended = subprocess.run(command, cwd=folder, capture_output=True, text=True, errors="replace", check=False)
    except FileNotFoundError:
        return f"{command[0]} is not installed"
    said = (ended.stderr or ended.stdout).strip().splitlines()
    return "" if ended.returncode == 0 else one_line(" ".join(said[:2])) if said else f"it ends with {ended.returncode}"
