"""From the tables to what FiftyOne shows: one pass over the pool, part by part, for every view at once."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from selftrain.counters import Stream, mix
from selftrain.inspection.rounds import BrowsedRun
from selftrain.inspection.views import SavedView
from selftrain.plumbing.progress import progress_bar
from selftrain.tables.by_key import rows_among
from selftrain.tables.corpus import REPEATS
from selftrain.tables.keys import part_name, shard_of, shard_of_part
from selftrain.tables.manifest import find_rows
from selftrain.tables.parquet import collect, column_names, read_frame
from selftrain.tables.predictions import prediction_parts, read_part
from selftrain.tables.selection import scan_selection
from selftrain.tables.truth import TRUTH

if TYPE_CHECKING:
    import polars as pl


@dataclass(frozen=True)
class Pool:
    """The tables of a pipeline's unlabeled split."""

    runs: list[BrowsedRun]
    corpus: Path
    review: Path | None
    """What ``selftrain review`` wrote; None where it did not run."""
    asked: Path | None = None
    """What ``selftrain ask`` wrote; None where it did not run."""


@dataclass(frozen=True)
class ImagePrediction:
    """A run's prediction of one image."""

    label: int
    confidence: float
    log_probs: list[float]  # C


def iter_pool(pool: Pool, shards: set[int] | None = None) -> "Iterator[pl.DataFrame]":
    """The pool, a row an image, part by part; of the shards given, or all.

    Columns: ``key``; of every run ``<run>_label, <run>_confidence``; of every round ``<round>_pseudo`` (the label it
    trains on), ``<round>_decision, <round>_copies, <round>_review`` (place in its list of doubtful labels); ``truth``,
    ``pair`` (what the image repeats), ``out_of_domain`` and ``asked`` (places in these lists). What there is not is
    null.
    """
    import polars as pl

    truth = read_frame(pool.corpus / TRUTH).rename({"label": "truth"}).sort("key")
    repeats = read_frame(pool.corpus / REPEATS).select("key", pair="of_key").sort("key")
    lists = {f"{run.name}_review": _ranks(pool.review, run.name) for run in pool.runs if run.selection is not None}
    lists["out_of_domain"] = _ranks(pool.review, "out_of_domain")
    lists["asked"] = _asked(pool, repeats)
    for part in prediction_parts(pool.runs[0].predictions):
        if shards is not None and shard_of_part(part.name) not in shards:
            continue
        table: pl.DataFrame | None = None
        for run in pool.runs:
            predicted = read_frame(run.predictions / part.name, ["key", "label", "confidence"])
            predicted = predicted.rename({"label": f"{run.name}_label", "confidence": f"{run.name}_confidence"})
            table = predicted if table is None else _beside(table, predicted, run.predictions)
            if run.selection is not None:
                columns = ["key", "label", "decision", "copies"]
                chosen = read_frame(run.selection / part.name, columns)
                names = {"label": "pseudo", "decision": "decision", "copies": "copies"}
                chosen = chosen.rename({name: f"{run.name}_{new}" for name, new in names.items()})
                table = _beside(table, chosen, run.selection)
        assert table is not None
        for other in (truth, repeats):
            table = table.join(rows_among(other, table["key"]), on="key", how="left", maintain_order="left")
        for name, ranks in lists.items():
            table = table.join(ranks.rename({"rank": name}), on="key", how="left", maintain_order="left")
        yield table


def sample_views(pool: Pool, views: list[SavedView], images_per_view: int) -> dict[str, tuple[set[int], int]]:
    """For each view, keys of at most so many of its images, and how many there are in the pool.

    The same random sample every time, or the first in the view's own order.
    """
    import polars as pl

    empty = pl.DataFrame(schema={"key": pl.Int64, "place": pl.Float64})
    chosen = {view.name: (empty, 0) for view in views}
    parts = len(prediction_parts(pool.runs[0].predictions))
    with progress_bar("fiftyone views", total=parts) as advance:
        for table in iter_pool(pool):
            uniforms = table.with_columns(
                uniform=pl.Series(mix(0, Stream.APP_POOL, table["key"].to_numpy())).cast(pl.Float64)
            )
            for view in views:
                before, count = chosen[view.name]
                rows = uniforms.filter(view.rows())
                place = pl.col(view.order or "uniform").cast(pl.Float64)
                both = pl.concat([before, rows.select("key", place=place)])
                chosen[view.name] = (both.sort("place", "key").head(images_per_view), count + len(rows))
            advance()
    return {name: (set(frame["key"].to_list()), count) for name, (frame, count) in chosen.items()}


def rows_of(pool: Pool, keys: set[int]) -> "pl.DataFrame":
    """The pool's rows of some images, sorted by key."""
    import polars as pl

    wanted = pl.Series(sorted(keys), dtype=pl.Int64).implode()
    found = [table.filter(pl.col("key").is_in(wanted)) for table in iter_pool(pool, {shard_of(key) for key in keys})]
    return pl.concat(found).sort("key") if found else next(iter_pool(pool)).clear()


def image_predictions(predictions: Path, keys: set[int]) -> dict[int, ImagePrediction]:
    """A run's predictions of some images of a split; only the parts that hold them are read."""
    wanted = np.array(sorted(keys), dtype=np.int64)
    result = {}
    for shard in sorted({shard_of(int(key)) for key in wanted}):
        part = read_part(predictions / part_name(shard))
        for row in np.flatnonzero(np.isin(part.keys, wanted)):
            result[int(part.keys[row])] = ImagePrediction(
                int(part.labels[row]), float(part.confidences[row]), part.log_probs[row].astype(float).tolist()
            )
    return result


def tally_rounds(pool: Pool) -> "pl.DataFrame":
    """``round, label, decision, images, copies`` of every round's selection, over the whole pool."""
    import polars as pl

    tallies = []
    for run in pool.runs:
        if run.selection is not None:
            rows = scan_selection(run.selection)
            counted = rows.group_by("label", "decision").agg(
                pl.len().alias("images"), pl.col("copies").cast(pl.Int64).sum()
            )
            tallies.append(collect(counted, run.selection).with_columns(round=pl.lit(run.name)))
    schema = {"label": pl.Int32, "decision": pl.String, "images": pl.UInt32, "copies": pl.Int64, "round": pl.String}
    return pl.concat(tallies) if tallies else pl.DataFrame(schema=schema)


def _ranks(review: Path | None, name: str) -> "pl.DataFrame":

    path = None if review is None else review / f"{name}.parquet"
    if path is None or not path.is_file():
        return no_ranks()
    return read_frame(path, ["key", "rank"])


def _asked(pool: Pool, repeats: "pl.DataFrame") -> "pl.DataFrame":
    """The questions that are still open: their images are the pool's, and no answer made duplicates of them."""
    if pool.asked is None or "sha256" not in column_names(pool.asked):
        return no_ranks()
    asked = read_frame(pool.asked, ["key", "rank", "sha256"])
    there = find_rows(pool.corpus / "unlabeled", asked["key"].to_list()).select("key", "sha256")
    return asked.join(there, on=["key", "sha256"], how="semi").join(repeats, on="key", how="anti").drop("sha256")


def no_ranks() -> "pl.DataFrame":
    """A list without an image."""
    import polars as pl

    return pl.DataFrame(schema={"key": pl.Int64, "rank": pl.UInt32})


def _beside(table: "pl.DataFrame", other: "pl.DataFrame", where: Path) -> "pl.DataFrame":
    """Two tables of the same images, side by side."""
    import polars as pl

    from selftrain.plumbing.errors import UserError

    if not table["key"].equals(other["key"]):
        raise UserError(f"{where}: made from other images than the other runs' tables; run `dvc repro`")
    return pl.concat([table, other.drop("key")], how="horizontal")
