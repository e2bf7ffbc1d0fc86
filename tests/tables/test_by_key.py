import numpy as np
import polars as pl
import pytest

from selftrain.tables.by_key import rows_among


@pytest.mark.parametrize("seed", range(5))
def test_no_row_that_a_join_needs_is_left_out(seed: int) -> None:
    rng = np.random.default_rng(seed)
    table = pl.DataFrame({"key": np.sort(rng.integers(0, 100, 60)), "value": np.arange(60)})
    for _ in range(20):
        keys = pl.Series("key", rng.choice(120, rng.integers(0, 6), replace=False))
        wanted = keys.to_frame().join(table, on="key", how="left", maintain_order="left_right")
        found = rows_among(table, keys)
        assert keys.to_frame().join(found, on="key", how="left", maintain_order="left_right").equals(wanted)
        assert len(found) == sum(bool(len(keys)) and keys.min() <= key <= keys.max() for key in table["key"])
