"""Modules that are found by their names: algorithms, policies, suites. A new one is a new file."""

import importlib
from pathlib import Path
from types import ModuleType

from selftrain.plumbing.errors import UserError
from selftrain.plumbing.sections import did_you_mean

PACKAGE = Path(__file__).parent.parent


def known_modules(package: str, shared: frozenset[str] = frozenset()) -> list[str]:
    """The names of the modules in a package of ours, such as ``algorithms``; ``shared`` are files that are none."""
    folder = PACKAGE.joinpath(*package.split("."))
    return sorted({path.stem for path in folder.glob("*.py")} - {"__init__"} - shared)


def find_module(
    package: str, name: str, where: str, shared: frozenset[str] = frozenset(), kind: str = ""
) -> ModuleType:
    """A module of a package of ours by its name.

    ``kind`` says in words what it is. Raises UserError, with the parameter ``where`` before it, if there is none.
    """
    known = known_modules(package, shared)
    if name not in known:
        raise UserError(f"{where}: there is no {kind}'{name}'; {did_you_mean(name, known)}")
    return importlib.import_module(f"selftrain.{package}.{name}")
