"""A user's text in CSV files: a class named ``=1+1`` is no formula of a spreadsheet."""

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import polars as pl

BEGINS_A_FORMULA = ("=", "+", "-", "@", "\t", "\r", "'")
"""Spreadsheets take a cell that begins so for a formula, so it gets an apostrophe before it. A cell that begins with an
apostrophe gets a second one, so that nothing is lost."""


def as_cell(text: str) -> str:
    """Text as a spreadsheet shows it: after an apostrophe if it would be a formula."""
    return f"'{text}" if text.startswith(BEGINS_A_FORMULA) else text


def from_cell(cell: str) -> str:
    """The inverse of ``as_cell``."""
    return cell[1:] if cell.startswith("'") else cell


def as_cells(frame: "pl.DataFrame", *columns: str) -> "pl.DataFrame":
    """A table with some columns of text as cells."""
    return _mapped(frame, as_cell, columns)


def from_cells(frame: "pl.DataFrame", *columns: str) -> "pl.DataFrame":
    """The inverse of ``as_cells``."""
    return _mapped(frame, from_cell, columns)


def _mapped(frame: "pl.DataFrame", change: Callable[[str], str], columns: tuple[str, ...]) -> "pl.DataFrame":
    import polars as pl

    changed = [
        pl.Series(name, [None if text is None else change(text) for text in frame[name]], pl.String) for name in columns
    ]
    return frame.with_columns(changed)
