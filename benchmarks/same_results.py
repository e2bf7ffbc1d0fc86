"""Whether two copies of the project made the same: weights, predictions, selections, figures, corpus.

    python benchmarks/same_results.py BEFORE AFTER

Reproduce a pipeline in both folders with one seed, on one machine. Compared are the bytes of weights, of shards and of
manifests; the columns of prediction tables, of embeddings, of selections and of robustness tables; and the figures of
evaluations. Left out are what names a moment, a place or the program's code: seconds, MLflow ids, digests of code in
the stamps of tables, paths. A file that only one folder has is a difference. A main job of before, whose runs lay
directly under ``models``, is compared with ``models/noisy_student``.
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq

MAIN = "noisy_student"
FOLDERS = ("models", "predictions", "selections", "evaluation", "robustness", "robustness_figures")
LEFT_OUT = {
    "train_seconds",
    "mlflow_run_id",
    "teacher_mlflow_run_id",
    "git_commit",
    "paths",
    "seconds",
    "data",
    "tables",
}
LEFT_OUT |= {"tables", "peak_memory_mib", "predictions", "corrections", "stop_rule", "members"}


def files(root: Path) -> dict[str, Path]:
    """What is compared, by its name in today's layout."""
    found = {str(path.relative_to(root)): path for path in sorted((root / "data").rglob("*")) if _is_corpus(path, root)}
    for folder in FOLDERS:
        for path in sorted((root / folder).rglob("*")):
            if path.is_file() and path.suffix in (".safetensors", ".parquet", ".json", ".csv"):
                found[_name(path.relative_to(root))] = path
    return found


def _is_corpus(path: Path, root: Path) -> bool:
    return path.is_file() and path.relative_to(root).parts[1] != "code" and path.suffix in (".tar", ".parquet", ".png")


def _name(path: Path) -> str:
    """A path in today's layout."""
    folder, first, *rest = path.parts
    if folder == "evaluation" and first in ("robustness", "choosing_robustness"):
        return "/".join(("robustness_figures", first.removesuffix("_robustness"), *rest))
    if folder == "robustness" and first == MAIN:
        return "/".join((folder, "robustness", *rest))
    if folder in ("models", "predictions", "selections") and (Path("pipelines") / first).name not in PIPELINES:
        return "/".join((folder, MAIN, first, *rest))
    return str(path)


PIPELINES = {path.parent.name for path in Path(__file__).parent.parent.glob("pipelines/*/README.md")}


def content(path: Path) -> object:
    """What of a file has to be equal."""
    if path.suffix == ".parquet" and "manifest" not in path.parts:
        return pq.read_table(path).replace_schema_metadata(None).to_pydict()
    if path.suffix == ".json":
        return _without(json.loads(path.read_text(encoding="utf-8")))
    return path.read_bytes()


def _without(value: object) -> object:
    if isinstance(value, dict):
        return {key: _without(item) for key, item in value.items() if key not in LEFT_OUT}
    return [_without(item) for item in value] if isinstance(value, list) else value


def differences(before: Path, after: Path) -> Iterator[str]:
    """A line for each difference."""
    old, new = files(before), files(after)
    for name in sorted(old.keys() | new.keys()):
        if name not in old or name not in new:
            yield f"{name}: only {'after' if name in new else 'before'}"
        elif content(old[name]) != content(new[name]):
            yield f"{name}: differs"


def main() -> None:
    """Print the differences and how much was compared; exit 1 if there are some."""
    before, after = map(Path, sys.argv[1:])
    for folder in (before, after):
        if not files(folder):
            raise SystemExit(f"{folder}: has no results; run `dvc repro` there")
    found = list(differences(before, after))
    print("\n".join(found))
    print(f"{len(files(before))} files before, {len(files(after))} after, {len(found)} differences")
    raise SystemExit(bool(found))


if __name__ == "__main__":
    main()
