"""Corrections of two sides against what both had last."""

import itertools
from typing import Any

import pytest

from selftrain.inspection.corrections import merge


@pytest.mark.parametrize(
    ("base", "app", "file", "merged", "conflict"),
    [
        (None, "3", None, "3", False),
        (None, None, "3", "3", False),
        ("3", "3", None, None, False),
        ("3", None, "3", None, False),
        ("3", "5", "3", "5", False),
        ("3", "3", "5", "5", False),
        ("3", "5", "5", "5", False),
        (None, "reject", None, "reject", False),
        ("3", "5", "8", ("5", "8"), True),
        ("3", None, "8", (None, "8"), True),
        (None, "3", "reject", ("3", "reject"), True),
    ],
)
def test_what_one_side_left_alone_the_other_decides(
    base: Any, app: Any, file: Any, merged: Any, conflict: bool
) -> None:
    sides = [{7: said} if said is not None else {} for said in (base, app, file)]
    for prefer, place in (("app", 0), ("file", 1)):
        result = merge(*sides, {7}, prefer)
        assert result.corrections.get(7) == (merged[place] if conflict else merged)
        assert bool(result.conflicts) == conflict
    assert merge(*sides, set(), "app").corrections.get(7) == file, "what the App does not show, it does not decide"


def test_a_merge_repeated_changes_nothing() -> None:
    sides = [None, "3", "5", "reject"]
    for base, app, file in itertools.product(sides, repeat=3):
        start = [{1: said} if said is not None else {} for said in (base, app, file)]
        once = merge(*start, {1}, "app").corrections
        assert merge(once, once, once, {1}, "app").corrections == once
