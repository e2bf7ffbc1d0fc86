"""Several right classes of a test image, as ImageNet-ReaL has them: what one label calls wrong may be in the picture.

Beyer et al. 2020, "Are we done with ImageNet?", arXiv 2006.07159. ``data/corpus/test/multi_labels.parquet``: ``key,
label``, a row for each class of an image. An image without a row has no class that anybody agreed on, and is left out.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from selftrain.plumbing.errors import UserError
from selftrain.tables.manifest import scan_manifest
from selftrain.tables.parquet import collect, read_frame, write_frame
from selftrain.tables.truth import read_truth_csv

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
    unknown = rows.filter(~pl.col("class").is_in(classes))
    if len(unknown):
        raise UserError(f"{csv}: '{unknown['class'][0]}', a label of {unknown['source'][0]}, is not a class")
    index = pl.DataFrame(
        {"class": classes, "label": list(range(len(classes)))}, schema={"class": pl.String, "label": pl.Int32}
    )
    images = collect(scan_manifest(split_folder).select("key", "source"), split_folder)
    known = rows.join(index, on="class").join(images, on="source", how="left")
    missing = known.filter(pl.col("key").is_null() & ~pl.col("source").is_in(sorted(quarantined)))
    if len(missing):
        raise UserError(f"{csv}: {missing['source'][0]} is not among the test images; correct or remove its row")
    found = known.filter(pl.col("key").is_not_null()).select("key", "label").sort("key", "label")
    write_frame(found, split_folder / FILE)
    return found["key"].n_unique()


def read_multi_labels(split_folder: Path) -> "pl.DataFrame | None":
    """``key, label`` of a split; None where nobody said."""
    path = split_folder / FILE
    return read_frame(path) if path.exists() else None
