"""DVC's two lock files: ``dvc.lock`` says which stage made what; ``rwlock`` is half-written if DVC was killed."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from selftrain.plumbing.errors import UserError, one_line

LOCK, RWLOCK = Path("dvc.lock"), Path(".dvc/tmp/rwlock")


def mend_dvc_lock() -> None:
    """Remove DVC's lock file if it is half-written, and stays so: a DVC that runs writes it in a moment."""
    if not is_broken():
        return
    time.sleep(1)
    if is_broken():
        RWLOCK.unlink(missing_ok=True)
        print(f"{RWLOCK}: removed; a killed DVC left it half-written")


def locked_stages() -> Iterator[tuple[str, Any]]:
    """The stages of all pipelines' ``dvc.lock``, by name; their paths are relative to the project's folder."""
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    for path in (LOCK, *sorted(Path("pipelines").glob(f"*/{LOCK}"))):
        if path.is_file():
            try:
                found = YAML(typ="safe").load(path) or {}
            except YAMLError as error:
                what = f"{path}: not valid YAML ({one_line(error)}); mend what a merge left in it"
                raise UserError(f"{what}, or remove it: `dvc repro` writes it anew") from None
            yield from found.get("stages", {}).items()


def maker_of(path: Path) -> str | None:
    """The stage of any pipeline's ``dvc.lock`` that made a file or a folder; None if none did."""
    for name, stage in locked_stages():
        for out in stage.get("outs", []):
            if path.resolve().is_relative_to(Path(out["path"]).resolve()):
                return str(name).partition("@")[0]
    return None


def is_broken() -> bool:
    """Whether DVC's lock file is no JSON."""
    try:
        json.loads(RWLOCK.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return False
    except ValueError:
        return True
    return False
