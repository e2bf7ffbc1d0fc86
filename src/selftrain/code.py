"""What a result depends on: the code that a command imports, told by digests of its syntax trees.

The stage ``code`` writes one file a command and run under ``data/code/<pipeline>``, a line for each source file: its
path and its digest. The other stages depend on these files. Stamps of tables and fingerprints of checkpoints are
digests of the same lines.

A digest leaves out what cannot change a result: comments, formatting, docstrings, annotations for type checkers alone,
what is printed, and the words of an error. No result depends on ``plumbing``, the command line, or where a project has
its folders: these are not followed.
"""

import ast
import hashlib
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

PACKAGE = Path(__file__).parent
NOT_FOLLOWED = ("plumbing", "cli", "code", "project")
COMMANDS = ("cli/stages.py", "cli/results.py")
DATA_SUFFIXES = (".html", ".md", ".yml")
"""Templates: those of a folder count for every module in it that names one."""


def code_lines(command: str, named: Iterable[str] = ()) -> list[str]:
    """One line ``file digest`` for each file that a sub-command imports, directly or through others, sorted.

    ``named`` are modules that are found by name, such as ``algorithms.noisy_student``: no import shows them.
    """
    return _lines({*_imports_of_command(command), *named})


def _lines(modules: set[str]) -> list[str]:
    todo = set(modules)
    files: set[Path] = set()
    while todo:
        for file in _files_of(todo.pop()):
            if file not in files:
                files.add(file)
                todo |= _imports(file)
    folders = {file.parent for file in files if _reads_data(file)}
    files |= {path for folder in folders for path in folder.iterdir() if path.suffix in DATA_SUFFIXES}
    return sorted(f"{file.relative_to(PACKAGE).as_posix()} {_digest(file)}" for file in files)


def code_digest(command: str, named: Iterable[str] = ()) -> str:
    """A short hash of ``code_lines``."""
    return _short_hash(code_lines(command, named))


def modules_digest(names: Iterable[str]) -> str:
    """A short hash of some modules, ``images.decode`` for one, and of what they import."""
    return _short_hash(_lines(set(names)))


def _short_hash(lines: list[str]) -> str:
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


def commands() -> list[str]:
    """Every sub-command that makes or reads results, as its function is named."""
    return [function.name for function in _command_functions()]


def syntax(node: object) -> object:
    """What of a syntax tree can change a result, as nested tuples; equal for every version of Python."""
    if isinstance(node, list):
        return tuple(syntax(item) for item in node if not _changes_nothing(item))
    if not isinstance(node, ast.AST):
        return repr(node)
    if isinstance(node, ast.Raise):
        return ("Raise", ast.unparse(node.exc).partition("(")[0] if node.exc else "")
    fields = ((name, getattr(node, name)) for name in node._fields if name not in ("kind", "type_comment"))
    # Fields that a version of Python does not have yet are empty in the others.
    return (type(node).__name__, *((name, syntax(value)) for name, value in fields if value not in (None, [])))


def _changes_nothing(node: object) -> bool:
    if isinstance(node, ast.If):
        return _for_type_checkers(node)
    if not isinstance(node, ast.Expr):
        return False
    value = node.value
    is_text = isinstance(value, ast.Constant) and isinstance(value.value, str)
    return is_text or (isinstance(value, ast.Call) and isinstance(value.func, ast.Name) and value.func.id == "print")


def _for_type_checkers(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


@cache
def _tree(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"))


@cache
def _digest(file: Path) -> str:
    content = file.read_bytes() if file.suffix != ".py" else repr(syntax(_tree(file))).encode()
    return hashlib.sha256(content).hexdigest()[:16]


@cache
def _reads_data(file: Path) -> bool:
    texts = (node.value for node in ast.walk(_tree(file)) if isinstance(node, ast.Constant))
    return any(isinstance(text, str) and text.endswith(DATA_SUFFIXES) and " " not in text for text in texts)


@cache
def _imports(file: Path) -> frozenset[str]:
    return frozenset(_imported(_tree(file))) if file.suffix == ".py" else frozenset()


def _imported(tree: ast.AST) -> Iterator[str]:
    """Modules of the package, by their dotted names in it, that a piece of code imports, wherever in it."""
    nodes = [tree]
    while nodes:
        node = nodes.pop()
        if _for_type_checkers(node):
            continue
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "selftrain":
            module = (node.module or "").removeprefix("selftrain").removeprefix(".")
            yield from (f"{module}.{alias.name}".removeprefix(".") for alias in node.names)
            yield module
        nodes += ast.iter_child_nodes(node)


def _files_of(module: str) -> list[Path]:
    """The files that importing a module runs, but for what is not followed."""
    parts = module.split(".")
    if not module or parts[0] in NOT_FOLLOWED:
        return []
    packages = [PACKAGE.joinpath(*parts[: depth + 1], "__init__.py") for depth in range(len(parts))]
    return [path for path in (*packages, PACKAGE.joinpath(*parts).with_suffix(".py")) if path.is_file()]


def _command_functions() -> list[ast.FunctionDef]:
    nodes = [node for file in COMMANDS for node in _tree(PACKAGE / file).body]
    return [node for node in nodes if isinstance(node, ast.FunctionDef) and node.decorator_list]


def _imports_of_command(command: str) -> set[str]:
    (function,) = [node for node in _command_functions() if node.name == command]
    return set(_imported(function))
