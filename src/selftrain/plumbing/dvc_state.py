"""What DVC knows of the outputs: whether its copies are whole, and what it would run."""

import hashlib
import json
import subprocess
import sys
from collections.abc import Collection
from pathlib import Path
from typing import Any

from selftrain.plumbing.dvc_lock import locked_stages
from selftrain.plumbing.errors import UserError


def damaged_objects() -> list[tuple[Path, str]]:
    """Files of DVC's cache that ``dvc.lock`` counts on, whose bytes are not those of their name, and of what.

    What is not in the cache may be in a remote, and is none of it.
    """
    cache = _cache()
    found = []
    for digest, out in sorted(_outputs().items()):
        names = {digest: out}
        listing = cache / digest[:2] / digest[2:]
        if digest.endswith(".dir") and listing.is_file():
            if _md5(listing) != digest.removesuffix(".dir"):
                found.append((listing, out))
                continue
            names = {entry["md5"]: f"{out}/{entry['relpath']}" for entry in json.loads(listing.read_bytes())}
        for md5, name in names.items():
            path = cache / md5[:2] / md5[2:]
            if path.is_file() and _md5(path) != md5:
                found.append((path, name))
    return found


def would_run() -> dict[str, list[str]]:
    """The stages that ``dvc repro`` would run, and why, as ``dvc status`` says. Raises UserError if DVC fails."""
    if not Path(".dvc", "config").is_file():
        return {}
    said = subprocess.run(
        [sys.executable, "-m", "dvc", "status", "--json"], capture_output=True, text=True, check=False
    )
    if said.returncode:
        raise UserError(f"`dvc status` fails: {(said.stderr.strip().splitlines() or ['no reason is given'])[0]}")
    found: dict[str, list[str]] = {}
    for stage, changes in json.loads(said.stdout or "{}").items():
        for change in changes:
            parts = change.items() if isinstance(change, dict) else [(change, {})]
            for kind, paths in parts:
                reasons = [_reason(path, what) for path, what in paths.items()] if isinstance(paths, dict) else []
                found.setdefault(stage, []).extend(reasons or [str(kind)])
    return found


def _reason(path: str, what: Any) -> str:
    """Of parameters DVC says what each of them is, of files what they are."""
    if isinstance(what, dict):
        return ", ".join(f"{name} of {path} is {state}" for name, state in what.items())
    return f"{path} is {what}"


def _outputs() -> dict[str, str]:
    """The hashes of all outputs in ``dvc.lock``, and their paths."""
    outs = [out for _, stage in locked_stages() for out in stage.get("outs", [])]
    return {out["md5"]: out["path"] for out in outs if "md5" in out}


def _cache() -> Path:
    said = subprocess.run([sys.executable, "-m", "dvc", "cache", "dir"], capture_output=True, text=True, check=False)
    return Path(said.stdout.strip() or ".dvc/cache") / "files" / "md5"


def _md5(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest()


def make_dvc_folder() -> None:
    """Make the working directory a project of DVC's, without git."""
    from dvc.repo import Repo

    Repo.init(no_scm=True).close()


def stage_commands(folder: Path, left_out: Collection[str] = ()) -> list[str]:
    """The commands of the stages in a folder's dvc.yaml and of all that they depend on, in the order of DVC's graph.

    ``left_out`` are names of stages, without what stands after ``@``.
    """
    import networkx
    from dvc.repo import Repo

    with Repo() as repo:
        graph = repo.index.graph  # from a stage to what it depends on
        own = [stage for stage in graph if Path(stage.path).parent == folder.resolve()]
        needed = set(own).union(*(networkx.descendants(graph, stage) for stage in own))
        ordered = [stage for stage in reversed(list(networkx.topological_sort(graph))) if stage in needed]
        kept = [stage.cmd for stage in ordered if (stage.name or "").partition("@")[0] not in left_out]
    return [line for command in kept for line in ([command] if isinstance(command, str) else command or [])]
