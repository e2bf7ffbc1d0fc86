"""What code a result was made with."""

import hashlib
from collections.abc import Iterable
from pathlib import Path

PACKAGE = Path(__file__).parent


def code_digest(paths: Iterable[str]) -> str:
    """A short hash of source files and folders of this package, by their paths in it."""
    digest = hashlib.sha256()
    for path in paths:
        for file in sorted((PACKAGE / path).rglob("*.py")) if (PACKAGE / path).is_dir() else [PACKAGE / path]:
            digest.update(f"{file.relative_to(PACKAGE)}\0".encode() + file.read_bytes())
    return digest.hexdigest()[:16]
