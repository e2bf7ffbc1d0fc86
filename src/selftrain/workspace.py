"""The folder that a pipeline runs in: git and DVC, and whether the images are where DVC can watch them."""

import getpass
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from selftrain.plumbing.errors import UserError
from selftrain.plumbing.git import holds
from selftrain.project import Project, all_pipelines

TEMPORARY = Path(".dvc", "tmp", "exps")
"""Where ``dvc exp run --temp`` and ``--queue`` work."""


def check_workspace(project: Project) -> list[str]:
    """Raises UserError for what makes DVC fail or wait for ever; returns what should be known besides."""
    _check_user(project.root)
    _check_git(project.root)
    root = (project.values.get("ingest") or {}).get("root")
    if root is None or root in made_by_stages(project) or not project.config.stages.ingest:
        return []
    return _check_images(project, root)


def made_by_stages(project: Project) -> set[str]:
    """Image folders that are outputs, of this or another pipeline."""
    pipelines = [project, *(Project.open(project.root, name) for name in all_pipelines(project.root))]
    return {folder for other in pipelines for folder in (*other.config.stages.digits, *other.config.stages.shift)}


def _check_user(root: Path) -> None:
    if not (root / ".dvc").is_dir():
        return
    try:
        getpass.getuser()
    except (KeyError, OSError):
        raise UserError(
            f"this system has no name for the user {os.getuid()}, and DVC asks for it; `export USER=me` gives one"
        ) from None


def _check_git(root: Path) -> None:
    config = root / ".dvc" / "config"
    if not config.is_file() or "no_scm = true" in config.read_text(encoding="utf-8").lower():
        return
    if not any((parent / ".git").exists() for parent in (root.resolve(), *root.resolve().parents)):
        raise UserError(
            f"{config}: there is no git repository here, and DVC expects one; `git init` makes it, or `dvc config "
            "core.no_scm true` does without"
        )


def _check_images(project: Project, root: str) -> list[str]:
    where, folder = f"{project.params_path}: ingest.root", project.root / root
    if not folder.is_dir():
        temporary = TEMPORARY.as_posix() in project.root.resolve().as_posix()
        hint = _IN_TEMPORARY if temporary else ""
        raise UserError(f"{where}: there is no folder {root}{hint}")
    if (project.root / project.config.corpus).resolve().is_relative_to(folder.resolve()):
        raise UserError(
            f"{where}: {root} holds {project.config.corpus}, and DVC cannot watch a folder that it writes to; put the "
            "images in one of their own"
        )
    for path, what in _not_watchable(folder):
        raise UserError(f"{path}: {what}, which DVC cannot watch; remove it from {root}")
    inside = folder.resolve().is_relative_to(project.root.resolve())
    if inside and (project.root / ".dvc").is_dir() and not holds(project.root, root):
        return [f"note: neither git nor DVC holds {root}{_IN_TEMPORARY}"]
    return []


_IN_TEMPORARY = (
    "; workspaces of `dvc exp run --temp` and `--queue` have what these hold and nothing else. `dvc add` the images, "
    "or give `ingest.root` as an absolute path"
)


def _not_watchable(folder: Path) -> Iterator[tuple[str, str]]:
    """What DVC cannot watch: all below a folder that is neither a file nor a folder."""
    for place, folders, files in os.walk(folder):
        for name in (*folders, *files):
            path = os.path.join(place, name)
            try:
                mode = os.stat(path).st_mode
            except OSError:
                yield path, "a link to nothing"
                continue
            if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
                yield path, "a pipe, a socket or a device"
