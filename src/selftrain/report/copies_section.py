"""Altered copies in the report: each image beside the one that it was found to repeat, so that a person can object."""

from dataclasses import dataclass
from pathlib import Path

from selftrain.report.pictures import Picture, data_urls
from selftrain.tables.corpus import REPEATS
from selftrain.tables.keys import split_of
from selftrain.tables.parquet import read_frame

MOST_PAIRS = 24


@dataclass(frozen=True)
class CopiesSection:
    """Pairs of (copy, what it repeats), the least alike first."""

    pairs: list[tuple[Picture, Picture]]
    found: int
    """Pairs in all."""


def copies_section(corpus: Path, most: int = MOST_PAIRS) -> CopiesSection:
    """The altered copies of ``duplicates.parquet`` with pictures; copies that equal an image need none."""
    import polars as pl

    near = read_frame(corpus / REPEATS).filter(pl.col("match") == "near")
    shown = near.sort("correlation", "key").head(most)
    keys, images = {*shown["key"], *shown["of_key"]}, dict[int, str]()
    for split in sorted({split_of(key) for key in keys}):
        images |= data_urls(corpus / split, [key for key in keys if split_of(key) == split])
    pairs = []
    for row in shown.iter_rows(named=True):
        key, of_key, kind = row["key"], row["of_key"], row["kind"]
        caption = f"{kind} {row['correlation']:.2f}"
        copy = Picture(images[key], f"{key}: {kind} of {of_key}, agreement {row['correlation']:.2f}", caption, False)
        pairs.append((copy, Picture(images[of_key], f"{of_key}", f"of {split_of(of_key)}", False)))
    return CopiesSection(pairs, len(near))
