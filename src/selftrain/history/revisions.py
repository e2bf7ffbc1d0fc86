"""DVC's outputs as they were at a git revision."""

import logging
import os
from pathlib import Path

from selftrain.plumbing.errors import UserError, one_line


def at_revision(path: Path, rev: str, into: Path) -> Path:
    """Bring a tracked folder's version of a git revision into a folder; return where it lies there.

    Raises UserError if there is no such revision, if DVC did not know the folder then, or if its files are in no cache.
    """
    from dvc.api import DVCFileSystem
    from dvc.exceptions import DvcException
    from dvc.scm import SCMError

    logging.getLogger("dvc").setLevel(logging.CRITICAL)
    target = into / path.name
    try:
        tree = DVCFileSystem(".", rev=rev)
        # DVC's file system takes paths from the folder that it is opened in, and no others.
        tree.get(os.path.relpath(path), str(target), recursive=True)
    except SCMError as error:
        raise UserError(f"--rev {rev}: git knows no such revision ({one_line(error)})") from None
    except (FileNotFoundError, DvcException) as error:
        reason = one_line(error)
        raise UserError(
            f"{path} at {rev}: {reason}; it takes a committed dvc.lock and the files in DVC's cache or remote "
            "(`dvc fetch --all-commits`)"
        ) from None
    if not target.is_dir() or not any(target.iterdir()):
        raise UserError(
            f"{path} at {rev}: none of its files are in DVC's cache; `dvc fetch --all-commits` may have them"
        )
    return target
