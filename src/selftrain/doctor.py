"""The command ``doctor``: what is wrong with a workspace, by content, and what to do; ``--fix`` does what is safe.

Safe is what loses nothing: removing what killed processes left, and making damaged files anew from what they were made
of. Whatever needs a training, or a file from elsewhere, is said and left.
"""

import platform
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from selftrain.history.shards import shard_troubles
from selftrain.plumbing.dvc_lock import RWLOCK, is_broken, mend_dvc_lock
from selftrain.plumbing.dvc_state import damaged_objects
from selftrain.plumbing.errors import UserError
from selftrain.plumbing.files import TEMPORARY_PREFIX, writer_is_alive
from selftrain.plumbing.locks import WORK, has_writer
from selftrain.plumbing.tracker import RUN, read_run, resend, waiting
from selftrain.plumbing.tracking import connect, is_installed
from selftrain.project import Project
from selftrain.tables.corpus import CLASSES
from selftrain.tables.keys import SPLITS
from selftrain.tables.parquet import reading
from selftrain.tables.records import check_weights
from selftrain.tables.seal import check_seal

FREE = 2**30
"""Bytes on the disk below which it is said."""
SHOWN = ("selftrain", "dvc", "mlflow", "fiftyone", "torch", "timm", "polars", "pyarrow")


@dataclass(frozen=True)
class Trouble:
    """One thing that is wrong."""

    what: str
    remedy: str
    fix: Callable[[], object] | None = None
    """Does the remedy, where that is safe."""


def examine(project: Project) -> Iterator[Trouble]:
    """Everything that is wrong with a workspace, as it is found. It reads every file of the corpus and the tables."""
    yield from _corpus(project)
    yield from _tables(project)
    yield from _models(project)
    yield from _checkpoints(project)
    yield from _leftovers(project)
    yield from _cache(project)
    yield from _tracking(project)
    free = shutil.disk_usage(project.root).free
    if free < FREE:
        yield Trouble(f"{project.root.resolve()}: {free / 2**20:,.0f} MiB are free on its disk", "make room")


def versions() -> str:
    """The versions of what matters, in a line."""
    found = [f"Python {platform.python_version()}"]
    for name in SHOWN:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            found.append(f"no {name}")
    return f"{', '.join(found)} on {sys.platform}"


def _corpus(project: Project) -> Iterator[Trouble]:
    for split in SPLITS:
        folder = project.corpus / split
        if not (folder / "manifest").is_dir():
            if (project.corpus / CLASSES).exists():
                yield Trouble(f"{folder}: is not there", "`dvc checkout`, or `dvc repro ingest`, brings it")
            continue
        try:
            found = shard_troubles(folder, deep=True)
        except UserError as error:
            found = [str(error)]
        for trouble in found:
            yield Trouble(trouble, "`selftrain ingest --verify` writes it anew from the images' sources")


def _tables(project: Project) -> Iterator[Trouble]:
    folders = (project.predictions, project.selections, project.review, project.evaluations, project.robustness)
    tables = [path for folder in folders for path in sorted(folder.rglob("*.parquet"))]
    for path in [*sorted(project.corpus.glob("*.parquet")), *tables]:
        try:
            with reading(path):
                check_seal(path)
        except UserError as error:
            yield Trouble(str(error), f"or remove it: `rm {path}`, and `dvc repro` makes it anew", path.unlink)


def _models(project: Project) -> Iterator[Trouble]:
    for folder in (*(run.model for run in project.runs.values()), project.best):
        if (folder / "model.safetensors").is_file():
            try:
                check_weights(folder)
            except UserError as error:
                yield Trouble(str(error), f"`dvc checkout {folder}`, or `dvc repro --force` of its stage")


def _checkpoints(project: Project) -> Iterator[Trouble]:
    for folder in sorted({path.parent for path in (WORK / "checkpoints" / project.name).rglob("step-*.safetensors")}):
        from selftrain.training.checkpoint import damaged_checkpoints

        for path in damaged_checkpoints(folder):
            yield Trouble(f"{path}: damaged", "the training passes over it; remove it", path.unlink)


def _leftovers(project: Project) -> Iterator[Trouble]:
    if is_broken():
        yield Trouble(f"{RWLOCK}: half-written by a killed DVC", "remove it", mend_dvc_lock)
    for folder in project.outputs:
        for path in sorted(folder.rglob(f"{TEMPORARY_PREFIX}*")):
            if any(parent.name.startswith(TEMPORARY_PREFIX) for parent in path.parents):
                continue
            if path.is_dir():
                # A user's own folders lie under data.
                is_ours = folder != project.root / "data"
                if is_ours and not has_writer(path.with_name(path.name.removeprefix(TEMPORARY_PREFIX))):
                    yield Trouble(f"{path}: left by a killed process", "remove it", partial(shutil.rmtree, path))
            elif not writer_is_alive(path):
                yield Trouble(f"{path}: left by a killed process", "remove it", path.unlink)


def _cache(project: Project) -> Iterator[Trouble]:
    if (project.root / ".dvc").is_dir():
        for path, out in damaged_objects():
            what = f"{path}: DVC's copy of {out} is damaged"
            yield Trouble(what, "remove it; `dvc commit` stores what is in the workspace, `dvc pull` what a remote has")


def _tracking(project: Project) -> Iterator[Trouble]:
    if not is_installed():
        return
    try:
        client, experiment = connect()
    except UserError as error:
        yield Trouble(str(error), "start the server, or set MLFLOW_TRACKING_URI")
        return
    waits = set()
    for folder in _trackers(project):
        run = read_run(folder)
        if run is not None and (what := waiting(folder)) and not has_writer(project.models / run.name):
            waits.add(run.id)
            yield Trouble(f"{folder}: {what} for MLflow", "send it", partial(resend, folder))
    filter_ = f"attributes.status = 'RUNNING' and tags.pipeline = '{project.name}'"
    for found in client.search_runs([experiment], filter_):
        name, run_id = found.data.tags.get("round", ""), found.info.run_id
        if run_id not in waits and not has_writer(project.models / name):
            what = f"MLflow: the run {name} ({run_id}) is RUNNING, and no process trains it"
            yield Trouble(what, "mark it KILLED", partial(client.set_terminated, run_id, "KILLED"))


def _trackers(project: Project) -> list[Path]:
    """The folders that remember runs of the pipeline: of each version of a training, and of each adopted model."""
    folders = (WORK / kind / project.name for kind in ("checkpoints", "adopted"))
    return sorted(path.parent for folder in folders for path in folder.rglob(RUN))
