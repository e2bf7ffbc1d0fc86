"""Hidden truth: what unlabeled images really show, where somebody knows. Read to measure, never to train."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from selftrain.plumbing.errors import UserError
from selftrain.tables.manifest import iter_manifest
from selftrain.tables.parquet import write_frame

if TYPE_CHECKING:
    import polars as pl

TRUTH = "truth.parquet"
"""In the corpus."""
NO_CLASS = -1
"""Truth of an image that shows none of the classes."""


def name_of_no_class(classes: Sequence[str]) -> str:
    """What an image of none of the classes is called where people look: no class is named so."""
    name = "none of the classes"
    while name in classes:
        name = f"({name})"
    return name


def write_truth(
    truth_csv: Path | None,
    hidden: dict[str, str],
    corpus: Path,
    classes: list[str],
    quarantined: set[str],
    out: Path,
) -> int:
    """Write ``key, label`` for the unlabeled images whose truth is known; return their number.

    It is known from the CSV (``file,label``), or from the class folder that an image was cut from (``hidden``,
    source → class). Raises UserError for an unknown class, a file that is not in the pool, and one with two labels.
    """
    import polars as pl

    schema = {"source": pl.String, "class": pl.String}
    truth = pl.DataFrame(list(hidden.items()), schema=schema, orient="row")
    if truth_csv is not None:
        told = read_truth_csv(truth_csv, "ingest.truth").unique(maintain_order=True)
        if len(twice := told.filter(pl.col("source").is_duplicated())):
            source, classes_told = twice["source"][0], twice.filter(pl.col("source") == twice["source"][0])["class"]
            names = " and ".join(f"'{name or ''}'" for name in classes_told)
            raise UserError(f"{truth_csv}: {source} has the labels {names}; keep one row")
        truth = pl.concat([truth, told]).unique("source", keep="last", maintain_order=True)
    pool = corpus / "unlabeled"
    found = match_sources(truth, pool, classes, quarantined, str(truth_csv), "the label", "unlabeled").sort("key")
    write_frame(found, out)
    return len(found)


def match_sources(
    rows: "pl.DataFrame",
    split_folder: Path,
    classes: list[str],
    quarantined: set[str],
    csv: str,
    called: str,
    split: str,
) -> "pl.DataFrame":
    """``source, class`` as ``key, label`` of a split's images; no class is -1, ``quarantined`` sources are left out.

    Raises UserError for an unknown class (``called`` "the label") and for a file that is none of the ``split``.
    """
    import polars as pl

    unknown = rows.filter(pl.col("class").is_not_null() & ~pl.col("class").is_in(classes))
    if len(unknown):
        raise UserError(f"{csv}: '{unknown['class'][0]}', {called} of {unknown['source'][0]}, is not a class")
    index = pl.DataFrame(
        {"class": classes, "label": list(range(len(classes)))}, schema={"class": pl.String, "label": pl.Int32}
    )
    labeled = rows.join(index, on="class", how="left").with_columns(pl.col("label").fill_null(NO_CLASS))
    known = [labeled.clear().select(pl.lit(0, pl.Int64).alias("key"), "label", "source")]
    # Part by part: a pool may have more images than memory has room for their names.
    for _, part in iter_manifest(split_folder, ["key", "source"]) if len(labeled) else ():
        known.append(pl.DataFrame(part).join(labeled, on="source").select(known[0].columns))
    found = pl.concat(known)
    missing = labeled.join(found, on="source", how="anti").filter(~pl.col("source").is_in(sorted(quarantined)))
    if len(missing):
        raise UserError(f"{csv}: {missing['source'][0]} is not among the {split} images; correct or remove its row")
    return found.select("key", "label")


def read_truth_csv(path: Path, parameter: str) -> "pl.DataFrame":
    """``source, class`` of a CSV with the columns ``file,label``; an empty label is null. Raises UserError."""
    import polars as pl

    if not path.is_file():
        raise UserError(f"{path}: no such file; correct `{parameter}` in params.yaml")
    try:
        table = pl.read_csv(path, infer_schema=False)
    except pl.exceptions.PolarsError as error:
        raise UserError(f"{path}: not a CSV in UTF-8: {' '.join(str(error).split())[:200]}") from None
    if table.columns != ["file", "label"]:
        raise UserError(f"{path}: expected the columns file,label; found {','.join(table.columns)}")
    nameless = table["file"].is_null()
    if nameless.any():
        raise UserError(f"{path}: row {nameless.arg_true()[0] + 2} names no file; give its name, or remove the row")
    empty_is_none = pl.when(pl.col("label") != "").then(pl.col("label"))
    return table.select(pl.col("file").alias("source"), empty_is_none.alias("class"))
