"""Tables that are sorted by key, and held whole beside the parts of a pool."""

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import polars as pl


def rows_among(table: "pl.DataFrame", keys: "pl.Series") -> "pl.DataFrame":
    """The rows of a table, sorted by ``key``, from the first of some keys to the last.

    A part of a pool is small and such a table is not: whoever joins the two takes this first.
    """
    if not len(keys):
        return table.clear()
    sorted_keys, wanted = table["key"].to_numpy(), keys.to_numpy()
    first = np.searchsorted(sorted_keys, wanted.min(), side="left")
    end = np.searchsorted(sorted_keys, wanted.max(), side="right")
    return table[int(first) : int(end)]
