"""What a result depends on: what changes a digest and what does not."""

import ast
from pathlib import Path

import pytest

from selftrain import code
from selftrain.code import code_digest, code_lines, syntax

PROGRAM = '''
"""A module."""
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import polars

LIMIT = 3
"""The most."""


def f(x: int) -> int:
    """Adds one."""
    if x > LIMIT:
        raise ValueError(f"{x} is more than {LIMIT}")
    print("adding")
    return x + 1  # one more
'''


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ('"""A module."""', '"""Another module,\n\nwith a longer story."""'),
        ('"""The most."""', '"""At most so many."""'),
        ('    """Adds one."""\n', ""),
        ("  # one more", ""),
        ("return x + 1", "return (\n        x\n        + 1\n    )"),
        ('f"{x} is more than {LIMIT}"', 'f"{x}: too large, at most {LIMIT}"'),
        ('print("adding")', 'print("adding", "one")'),
        ("    import polars", "    import duckdb"),
    ],
)
def test_what_cannot_change_a_result_changes_no_digest(before: str, after: str) -> None:
    assert before in PROGRAM
    assert syntax(ast.parse(PROGRAM)) == syntax(ast.parse(PROGRAM.replace(before, after)))


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("LIMIT = 3", "LIMIT = 4"),
        ("LIMIT = 3", "LIMIT = 3.0"),
        ("x + 1", "x + 2"),
        ("x + 1", "1 + x"),
        ("x > LIMIT", "x >= LIMIT"),
        ("ValueError", "KeyError"),
        ("from typing", "import os\nfrom typing"),
    ],
)
def test_what_can_change_a_result_changes_the_digest(before: str, after: str) -> None:
    assert before in PROGRAM
    assert syntax(ast.parse(PROGRAM)) != syntax(ast.parse(PROGRAM.replace(before, after)))


def files(command: str, *named: str) -> set[str]:
    return {line.split()[0] for line in code_lines(command, named)}


def test_the_closure_is_what_importing_loads() -> None:
    import subprocess
    import sys

    program = (
        "import sys\nimport selftrain.selection.select, selftrain.selection.policies.threshold\n"
        "print(*[name for name in sys.modules if name.startswith('selftrain.')])"
    )
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    paths = {name.removeprefix("selftrain.").replace(".", "/") for name in loaded}
    followed = {path for path in paths if path.split("/")[0] not in code.NOT_FOLLOWED}
    found = {
        file.removesuffix(".py").removesuffix("/__init__") for file in files("select", "selection.policies.threshold")
    }
    assert followed <= found
    # What is imported only inside functions belongs to it as well.
    assert found - followed <= {"images", "images/reader"}


def test_an_algorithm_is_in_its_own_runs_alone() -> None:
    assert "algorithms/uda.py" in files("train", "algorithms.uda")
    assert "algorithms/uda.py" not in files("train", "algorithms.fixmatch")
    assert "learning/gradients.py" in files("train", "algorithms.meta_pseudo_labels"), "what it imports comes along"
    assert code_digest("train", ["algorithms.uda"]) != code_digest("train", ["algorithms.fixmatch"])
    assert "images/policies/svhn.py" not in files("train", "images.policies.full")


def test_templates_belong_to_what_reads_them() -> None:
    assert {"report/template.html", "report/style.html"} <= files("report")
    assert "release/card.md" in files("best")
    assert not any(file.endswith((".html", ".md")) for file in files("train"))


def test_plumbing_is_in_nothing() -> None:
    for command in code.commands():
        assert not {file for file in files(command) if file.startswith(("plumbing/", "cli/"))}


def test_a_digest_is_of_the_file(tmp_path: Path) -> None:
    one, other = tmp_path / "a.py", tmp_path / "b.py"
    one.write_text("x = 1\n")
    other.write_text("x = 1  # as it was\n")
    assert code._digest(one) == code._digest(other)
    template = tmp_path / "c.html"
    template.write_text("<p>")
    assert code._digest(template) != code._digest(one)
