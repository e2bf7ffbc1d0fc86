"""Write docs/licences.md: the licence of every library that the lock names and that is installed here."""

import re
from importlib.metadata import Distribution, distributions
from pathlib import Path

ROOT = Path(__file__).parent.parent
TARGET = ROOT / "docs" / "licences.md"
HEAD = """# Licences of the libraries

The package is Apache-2.0. These are the libraries of `requirements.txt`, with the extras and the tools of development,
as they name their licences themselves. `make lock` writes this table, and `make sbom` a bill of materials (CycloneDX)
with versions and hashes.

| library | licence |
| --- | --- |
"""


def locked() -> set[str]:
    """The libraries that the lock names."""
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    return {canonical(found[1]) for line in lines if (found := re.match(r"([\w.-]+)==", line))}


def canonical(name: str) -> str:
    """A library's name as indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def licence(distribution: Distribution) -> str:
    """What a library's metadata says: an expression, a classifier, or the first words of a text."""
    said = distribution.metadata
    classifiers = [
        value.rpartition(" :: ")[2] for value in said.get_all("Classifier") or () if value.startswith("License :: ")
    ]
    classifiers = [value for value in classifiers if value != "OSI Approved"]
    lines = (said.get("License") or "").strip().splitlines()
    first = lines[0].strip() if lines else ""
    found = said.get("License-Expression") or ", ".join(classifiers) or first
    return found if found.strip() not in ("", "UNKNOWN", "Dual License") else "see its own files"


def table() -> str:
    """The page."""
    names = locked()
    found = {canonical(one.metadata["Name"]): licence(one) for one in distributions() if one.metadata["Name"]}
    rows = [f"| {name} | {text} |" for name, text in sorted(found.items()) if name in names]
    return HEAD + "\n".join(rows) + "\n"


if __name__ == "__main__":
    TARGET.write_text(table(), encoding="utf-8")
