"""From a model back to its data: selection, predictions, teacher, shards, each held against what was recorded of it.

``run.json`` of a model says what it was made from, by path and by digest. Each link is found, changed or missing.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from selftrain.history.shards import shard_troubles
from selftrain.plumbing.errors import UserError
from selftrain.plumbing.files import read_json, sha256_of
from selftrain.plumbing.git import git
from selftrain.tables.corrections import file_digest
from selftrain.tables.manifest import manifest_digest
from selftrain.tables.predictions import made_from_digest, weights_of
from selftrain.tables.records import WEIGHTS, RunRecord
from selftrain.tables.selection import parts_digest

State = Literal["found", "changed", "missing", "recorded"]
SPLITS = ("labeled", "validation", "unlabeled", "test")
"""In the order in which they are told: what a model learned from, what chose it, its pool."""
TABLES = ("predictions", "labeled_predictions")


@dataclass(frozen=True)
class Link:
    """One thing that a model was made from, and what that was made from in turn."""

    kind: str
    path: str
    digest: str
    """As recorded; of a model at the head of the line, as found."""
    state: State
    trouble: str = ""
    """What is wrong, unless it is just as recorded."""
    mlflow_run_id: str = ""
    git_commit: str = ""
    made_from: list["Link"] = field(default_factory=list)

    def all(self) -> Iterator["Link"]:
        """This link and all behind it."""
        yield self
        for link in self.made_from:
            yield from link.all()


def trace(model: Path, deep: bool = False) -> Link:
    """Follow a model folder back to the shards; ``deep`` reads every image and compares its hash with the manifest's.

    Raises UserError if the folder is no run's model.
    """
    if not (model / "run.json").is_file():
        raise UserError(f"{model}: no run.json there, so not a model that a run made")
    return _model("model", str(model), None, deep, {})


def recorded(record: RunRecord, others: Mapping[str, RunRecord], path: str, kind: str = "model") -> Link:
    """The same from ``run.json`` alone, as recorded when the run ended; nothing is looked at.

    ``others`` are the pipeline's runs by name, of which the teacher is one; ``path`` is the model's.
    """
    link = Link(
        kind, path, record.get("weights", ""), "recorded", "", record["mlflow_run_id"], record["git_commit"]
    )  # fmt: skip
    for name in (*SPLITS, "selection", *TABLES):
        if name in record["data"]:
            link.made_from.append(Link(name, _path_of(record, name), record["data"][name], "recorded"))
    for name in _weights_of(record):
        link.made_from.append(Link(name, _path_of(record, name), record["data"][name], "recorded"))
    for member in record.get("members", []):
        run_id = member["mlflow_run_id"] or ""
        link.made_from.append(Link("adopted", member["path"], member["weights"], "recorded", "", run_id))
    if record["teacher"] in others:
        teacher = others[record["teacher"]]
        link.made_from.append(recorded(teacher, others, record.get("paths", {}).get("teacher", ""), "teacher"))
    return link


def _model(kind: str, path: str, expected: str | None, deep: bool, seen: dict[str, list[Link]]) -> Link:
    """A model and what it was made from; ``expected`` is the sha256 that its student recorded."""
    folder = Path(path)
    if not (folder / "run.json").is_file() or not (folder / "model.safetensors").is_file():
        return Link(
            kind, path, expected or "", "missing", "the model is not there; `dvc checkout` or `dvc pull` brings it"
        )
    record = RunRecord.read(folder / "run.json")
    found = sha256_of(folder / "model.safetensors")
    # What the student recorded of its teacher, or else what the run recorded of itself.
    expected = expected or record.get("weights")
    trouble = "" if expected in (None, found) else f"another model lies there now, {found[:12]}"
    link = Link(
        kind, path, expected or found, "changed" if trouble else "found", trouble,
        record["mlflow_run_id"], record["git_commit"],
    )  # fmt: skip
    for name in SPLITS:
        if name in record["data"]:
            link.made_from.append(_split(name, _path_of(record, name), record["data"][name], deep, seen))
    if "selection" in record["data"]:
        link.made_from.append(_selection(record))
    for table in TABLES:
        if table in record["data"]:
            link.made_from.append(_predictions(record, table))
    for name in _weights_of(record):
        link.made_from.append(_held_file(name, Path(_path_of(record, name)), record["data"][name]))
    for member in record.get("members", []):
        if member["run"]:
            link.made_from.append(_model("adopted", member["path"], member["weights"], deep, seen))
        elif member["weights"]:
            link.made_from.append(_from_elsewhere(Path(member["path"]), member["weights"]))
    if record.get("teacher_weights"):
        link.made_from.append(_model("teacher", record["paths"]["teacher"], record["teacher_weights"], deep, seen))
    return link


def _from_elsewhere(folder: Path, expected: str) -> Link:
    """A model folder that no run made: its line ends there."""
    link = _held_file("adopted", folder / "model.safetensors", expected)
    return replace(link, path=str(folder))


def _weights_of(record: RunRecord) -> list[str]:
    """The names of the links to weights that the run's networks started from."""
    return [name for name in record["data"] if name.startswith(WEIGHTS) and name in record.get("paths", {})]


def _held_file(kind: str, path: Path, expected: str) -> Link:
    """A file of weights that no run of this project may have made: its line ends there."""
    if not path.is_file():
        return Link(kind, str(path), expected, "missing", "the model is not there; it is not this project's")
    found = sha256_of(path)
    return _held(kind, path, expected, "" if found == expected else f"another model lies there now, {found[:12]}")


def _path_of(record: RunRecord, kind: str) -> str:
    paths = record.get("paths", {})
    if kind == "labeled_predictions":
        return str(Path(paths["predictions"]).with_name("labeled"))
    return str(paths.get(kind, "")) if kind not in SPLITS else f"{paths.get('corpus', '')}/{kind}"


def _selection(record: RunRecord) -> Link:
    path, expected = Path(_path_of(record, "selection")), record["data"]["selection"]
    if not any(path.glob("part-*.parquet")):
        return Link("selection", str(path), expected, "missing", "the selection is not there; `dvc checkout` brings it")
    found = parts_digest(path)
    trouble = "" if found == expected else f"another selection lies there now, {found[:12]}"
    link = _held("selection", path, expected, trouble)
    corrections = read_json(path / "summary.json", "dvc repro").get("corrections")
    if corrections:
        link.made_from.append(_corrections(Path(corrections["path"]), corrections["digest"]))
    return link


def _corrections(path: Path, expected: str) -> Link:
    if not path.is_file():
        return Link("corrections", str(path), expected, "missing", "the file is not there; `git checkout` brings it")
    found = file_digest(path)
    trouble = "" if found == expected else f"the corrections are others now, {found[:12]}"
    return _held("corrections", path, expected, trouble)


def _predictions(record: RunRecord, table: str) -> Link:
    path, expected = Path(_path_of(record, table)), record["data"][table]
    if not any(path.glob("part-*.parquet")):
        return Link(table, str(path), expected, "missing", "the table is not there; `dvc repro` makes it")
    found = made_from_digest(path)
    trouble = "" if found == expected else f"another table lies there now, {found[:12]}"
    others = weights_of(path) - {record.get("teacher_weights", "")}
    if others:
        trouble = f"made by another model than the teacher, {min(others)[:12]}"
    return _held(table, path, expected, trouble)


def _held(kind: str, path: Path, expected: str, trouble: str) -> Link:
    """What is there, held against what was recorded of it: changed if there is trouble, or else found."""
    return Link(kind, str(path), expected, "changed" if trouble else "found", trouble)


def _split(name: str, path: str, expected: str, deep: bool, seen: dict[str, list[Link]]) -> Link:
    """A split's manifest and shards; a chain of models has the same ones again and again, so they are read once."""
    for known in seen.get(path, []):
        if known.digest == expected:
            return known
    folder = Path(path)
    if not (folder / "manifest").is_dir():
        link = Link(name, path, expected, "missing", "the split is not there; `dvc checkout` brings it")
    elif (found := manifest_digest(folder)) != expected:
        link = _held(name, folder, expected, f"the split has other images or labels now, {found[:12]}")
    else:
        troubles = shard_troubles(folder, deep)
        more = f" and {len(troubles) - 1} more" if len(troubles) > 1 else ""
        link = _held(name, folder, expected, troubles[0] + more if troubles else "")
    seen.setdefault(path, []).append(link)
    return link


def commit_is_known(commit: str) -> bool:
    """Whether git has a commit, which ``run.json`` gives with ``+changes`` if files differed from it."""
    name = commit.partition("+")[0]
    return bool(name) and git("cat-file", "-t", f"{name}^{{commit}}") == "commit"
