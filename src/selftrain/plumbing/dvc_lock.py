"""DVC's two lock files: ``dvc.lock`` says which stage made what; ``rwlock`` is half-written if DVC was killed."""

import json
import time
from pathlib import Path
from typing import Any

LOCK, RWLOCK = Path("dvc.lock"), Path(".dvc/tmp/rwlock")


def mend_dvc_lock() -> None:
    """Remove DVC's lock file if it is half-written, and stays so: a DVC that runs writes it in a moment."""
    if not is_broken():
        return
    time.sleep(1)
    if is_broken():
        RWLOCK.unlink(missing_ok=True)
        print(f"{RWLOCK}: removed; a killed DVC left it half-written")


def locked_stages() -> dict[str, Any]:
    """The stages of the project's main ``dvc.lock``, by name; none if there is no such file."""
    from ruamel.yaml import YAML

    return (YAML(typ="safe").load(LOCK) or {}).get("stages", {}) if LOCK.is_file() else {}


def maker_of(path: Path) -> str | None:
    """The stage of the project's main ``dvc.lock`` that made a file or a folder; None if none did."""
    for name, stage in locked_stages().items():
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
