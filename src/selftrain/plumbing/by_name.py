"""Modules that are found by their names: algorithms, policies, suites. A new one is a new file."""

import importlib
from pathlib import Path
from types import ModuleType
from typing import TypeVar

from selftrain.plumbing.errors import UserError
from selftrain.plumbing.sections import did_you_mean

PACKAGE = Path(__file__).parent.parent
Base = TypeVar("Base")


def known_modules(package: str) -> list[str]:
    """The names of the modules in a package of ours, such as ``algorithms``."""
    folder = PACKAGE.joinpath(*package.split("."))
    return sorted({path.stem for path in folder.glob("*.py")} - {"__init__"})


def find_module(package: str, name: str, where: str, kind: str = "") -> ModuleType:
    """A module of a package of ours by its name.

    ``kind`` says in words what it is. Raises UserError, with the parameter ``where`` before it, if there is none.
    """
    known = known_modules(package)
    if name not in known:
        raise UserError(f"{where}: there is no {kind}'{name}'; {did_you_mean(name, known)}")
    return importlib.import_module(f"selftrain.{package}.{name}")


def find_class(package: str, name: str, base: type[Base], where: str, kind: str = "") -> type[Base]:
    """The one class of such a module that is a ``base``. Raises UserError as ``find_module``, and if it has none."""
    module = find_module(package, name, where, kind)
    found = [
        value
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, base) and value.__module__ == module.__name__
    ]
    if len(found) != 1:
        raise UserError(f"{where}: the file of '{name}' holds {len(found)} classes of {base.__name__}, not one")
    return found[0]
