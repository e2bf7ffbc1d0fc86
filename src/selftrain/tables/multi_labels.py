"""Several right classes of a test image, as ImageNet-ReaL has them: what one label calls wrong may be in the picture.

Beyer et al. 2020, "Are we done with ImageNet?", arXiv 2006.07159. ``data/corpus/test/multi_labels.parquet``: ``key,
label``, a row for each class of an image. An image without a row has no class that anybody agreed on, and is left out.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from selftrain.tables.parquet import read_frame, write_frame
from selftrain.tables.truth import match_sources, read_truth_csv

if TYPE_CHECKING:
    import polars as pl

FILE = "multi_labels.parquet"


def write_multi_labels(csv: Path | None, split_folder: Path, classes: list[str], quarantined: set[str]) -> int:
    """Write the table of a split from a CSV (``file,label``, several rows an image); return how many images have a row.

    None removes it. Rows of ``quarantined`` sources are left out. Raises UserError for a class that is none and a file
    that is not in the split.
    """
    import polars as pl

    if csv is None:
        (split_folder / FILE).unlink(missing_ok=True)
        return 0
    rows = read_truth_csv(csv, "ingest.multi_labels").filter(pl.col("class").is_not_null()).unique()
    found = match_sources(rows, split_folder, classes, quarantined, str(csv), "a label", "test").sort("key", "label")
    write_frame(found, split_folder / FILE)
    return found["key"].n_unique()


def read_multi_labels(split_folder: Path) -> "pl.DataFrame | None":
    """``key, label`` of a split; None where nobody said."""
    path = split_folder / FILE
    return read_frame(path) if path.exists() else None
