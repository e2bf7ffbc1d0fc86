from hypothesis import given
from hypothesis import strategies as st

from selftrain.tables.cells import as_cell, from_cell


@given(st.text())
def test_no_cell_is_a_formula_and_none_is_lost(text: str) -> None:
    assert from_cell(as_cell(text)) == text
    assert not as_cell(text).startswith(("=", "+", "-", "@", "\t", "\r"))
