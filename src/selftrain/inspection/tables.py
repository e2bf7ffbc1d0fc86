"""From the tables to what FiftyOne shows: which images, and each run's opinion of them."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from selftrain.corpus.keys import part_name, shard_of
from selftrain.counters import mix
from selftrain.inspection.rounds import Shown
from selftrain.inspection.views import SavedView, round_views
from selftrain.predictions.selection import scan_selection
from selftrain.predictions.table import prediction_parts, read_part

if TYPE_CHECKING:
    import polars as pl


@dataclass(frozen=True)
class Opinion:
    """A run's opinion of one image."""

    label: int
    confidence: float
    log_probs: list[float]  # C


def round_table(run: Shown, previous: Shown | None, truth: Path) -> "pl.LazyFrame":
    """A round's selection, with ``student_label``, ``previous_label`` and ``truth`` (null where there is none)."""
    import polars as pl

    assert run.selection is not None
    student = pl.scan_parquet(prediction_parts(run.predictions), glob=False).select("key", student_label="label")
    table = scan_selection(run.selection).join(student, on="key", how="left")
    if previous is not None and previous.selection is not None:
        before = scan_selection(previous.selection).select("key", previous_label="label")
        table = table.join(before, on="key", how="left")
    return table.join(pl.scan_parquet(truth, glob=False).rename({"label": "truth"}), on="key", how="left")


def saved_views(runs: list[Shown]) -> list[tuple[Shown, Shown | None, list[SavedView]]]:
    """Each round, the round before it, and the round's views."""
    by_name = {run.name: run for run in runs}
    rounds = [run for run in runs if run.selection is not None]
    result = []
    for run in rounds:
        teacher = by_name.get(run.teacher or "")
        previous = teacher if teacher is not None and teacher.selection is not None else None
        result.append((run, previous, round_views(run, previous)))
    return result


def images_to_show(runs: list[Shown], truth: Path, images_per_view: int) -> set[int]:
    """Keys of at most ``images_per_view`` images of each view: the same random sample every time."""
    import polars as pl

    lots = pl.col("key").map_batches(lambda keys: pl.Series(mix(0, keys.to_numpy())), return_dtype=pl.UInt64)
    keys: set[int] = set()
    for run, previous, views in saved_views(runs):
        table = round_table(run, previous, truth)
        for view in views:
            sample = table.filter(view.rows()).select("key", lot=lots).bottom_k(images_per_view, by="lot")
            keys.update(sample.collect(engine="streaming")["key"].to_list())
    return keys


def opinions(predictions: Path, keys: set[int]) -> dict[int, Opinion]:
    """A run's opinions of some images; only the parts that hold them are read."""
    wanted = np.array(sorted(keys), dtype=np.int64)
    shards = {shard_of(int(key)) for key in wanted}
    result = {}
    for shard in sorted(shards):
        part = read_part(predictions / part_name(shard))
        for row in np.flatnonzero(np.isin(part.keys, wanted)):
            result[int(part.keys[row])] = Opinion(
                int(part.labels[row]), float(part.confidences[row]), part.log_probs[row].astype(float).tolist()
            )
    return result
