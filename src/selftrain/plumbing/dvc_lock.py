"""A DVC that is killed while it writes its lock file leaves one that stops every later DVC."""

import json
import time
from pathlib import Path

RWLOCK = Path(".dvc/tmp/rwlock")


def mend_dvc_lock() -> None:
    """Remove DVC's lock file if it is half-written, and stays so: a DVC that runs writes it in a moment."""
    if not _is_broken():
        return
    time.sleep(1)
    if _is_broken():
        RWLOCK.unlink(missing_ok=True)
        print(f"{RWLOCK}: removed; a killed DVC left it half-written")


def _is_broken() -> bool:
    try:
        json.loads(RWLOCK.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return False
    except ValueError:
        return True
    return False
