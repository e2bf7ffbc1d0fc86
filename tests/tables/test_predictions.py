from pathlib import Path

import numpy as np
import pytest

from selftrain.plumbing.errors import UserError
from selftrain.tables import predictions as table
from selftrain.tables.predictions import PredictionPart


def part(rows: int, num_classes: int) -> PredictionPart:
    rng = np.random.default_rng(0)
    log_probs = np.log(rng.dirichlet(np.ones(num_classes), rows)).astype(np.float16)
    return PredictionPart(
        np.arange(rows, dtype=np.int64), log_probs.argmax(1).astype(np.int32), rng.random(rows, np.float32), log_probs
    )


@pytest.mark.parametrize("rows", [0, 1, 300])
def test_what_is_written_is_read(tmp_path: Path, rows: int) -> None:
    written = part(rows, 7)
    table.write_part(tmp_path, 3, written, list("abcdefg"), "model:images")
    ((shard, read),) = table.iter_predictions(tmp_path)
    assert shard == 3
    for name in ("keys", "labels", "confidences", "log_probs"):
        assert np.array_equal(getattr(read, name), getattr(written, name))
    assert read.log_probs.shape == (rows, 7)
    assert table.made_from(tmp_path, 3) == "model:images"
    assert table.prediction_classes(tmp_path) == list("abcdefg")


def test_a_damaged_part_is_as_good_as_none(tmp_path: Path) -> None:
    table.write_part(tmp_path, 0, part(9, 3), list("abc"), "x")
    path = tmp_path / "part-00000000.parquet"
    path.write_bytes(path.read_bytes()[:100])
    assert table.made_from(tmp_path, 0) is None
    assert table.made_from(tmp_path, 1) is None


def test_no_table_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no predictions there"):
        table.prediction_parts(tmp_path)


def test_the_digest_follows_what_parts_were_made_from(tmp_path: Path) -> None:
    table.write_part(tmp_path, 0, part(2, 3), list("abc"), "x")
    before = table.made_from_digest(tmp_path)
    table.write_part(tmp_path, 0, part(2, 3), list("abc"), "y")
    assert table.made_from_digest(tmp_path) != before
