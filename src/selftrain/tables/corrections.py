"""Corrections: what people said of unlabeled images, as a file that DVC tracks like any other input of ``select``.

``corrections.parquet``, one row an image, sorted by key: ``key, action, label, who, when, sha256``. ``action`` is
``reject`` (never select it), ``correct`` (select it with ``label``, a class's name) or ``no_copy`` (it is no altered
copy of another image, whatever ingest found: decide on it as on any image). ``sha256`` is the image's own:
a key that has come to mean another image is noticed.
"""

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

from selftrain.plumbing.errors import UserError
from selftrain.plumbing.files import atomic_path
from selftrain.tables.keys import split_of_or_none
from selftrain.tables.manifest import find_rows
from selftrain.tables.selection import CORRECTED, REJECTED

if TYPE_CHECKING:
    import polars as pl

REJECT, CORRECT, NO_COPY = "reject", "correct", "no_copy"
ACTIONS = (REJECT, CORRECT, NO_COPY)


def no_corrections() -> "pl.DataFrame":
    """The table without a row."""
    import polars as pl

    return pl.DataFrame(
        schema={
            "key": pl.Int64,
            "action": pl.String,
            "label": pl.String,
            "who": pl.String,
            "when": pl.Datetime("us", "UTC"),
            "sha256": pl.Binary,
        }
    )


def read_corrections(path: Path) -> "pl.DataFrame":
    """The rows of a corrections file, sorted by key.

    Raises UserError, naming the row, for a file that is no such table, an action that there is not, a label too many or
    too few, and two rows of one image.
    """
    import polars as pl

    if not path.is_file():
        raise UserError(f"{path}: no such file; git may have it, or `selftrain corrections export` makes it")
    try:
        table = pl.read_parquet(path, glob=False)
    except pl.exceptions.PolarsError as error:
        raise UserError(f"{path}: not a Parquet file ({' '.join(str(error).split())[:100]}); restore it") from None
    expected = no_corrections().schema
    if dict(table.schema) != dict(expected):
        raise UserError(
            f"{path}: expected the columns {_describe_schema(expected)}; found {_describe_schema(table.schema)}; "
            "export the corrections again"
        )
    for number, row in enumerate(table.iter_rows(named=True), start=1):
        where = f"{path}: row {number} (key {row['key']})"
        if row["key"] is None or row["sha256"] is None:
            raise UserError(f"{where}: key and sha256 may not be empty; remove the row")
        if row["action"] not in ACTIONS:
            raise UserError(f"{where}: there is no action '{row['action']}'; use one of {', '.join(ACTIONS)}")
        if (row["label"] is None) == (row["action"] == CORRECT):
            raise UserError(f"{where}: '{CORRECT}' takes a label, other actions take none; found {row['label']!r}")
    twice = table.with_row_index("row", offset=1).filter(pl.col("key").is_duplicated()).sort("key", "row")
    if len(twice):
        first, second = twice.head(2).iter_rows(named=True)
        raise UserError(
            f"{path}: rows {first['row']} and {second['row']} are both of key {first['key']}: "
            f"{describe(first)}, and {describe(second)}; keep one"
        )
    return table.select(expected.names()).sort("key")


def check_corrections(corrections: "pl.DataFrame", path: Path, classes: list[str], unlabeled: Path) -> None:
    """Raises UserError, naming the first row, for keys, images and classes that the corpus does not have."""
    stale = stale_rows(corrections, classes, unlabeled)
    if not stale:
        return
    (key, reason), *others = stale.items()
    row = next(row for row in corrections.iter_rows(named=True) if row["key"] == key)
    more = f", as are {len(others)} more" if others else ""
    raise UserError(
        f"{path}: the row of key {key} ({describe(row)}) is stale{more}: {reason}; "
        "`selftrain corrections prune` removes stale rows"
    )


def stale_rows(corrections: "pl.DataFrame", classes: list[str], unlabeled: Path) -> dict[int, str]:
    """The keys of rows that do not fit the corpus, and why."""
    import polars as pl

    images = find_rows(unlabeled, [key for key in corrections["key"] if split_of_or_none(key) == "unlabeled"])
    known = dict(images.select("key", pl.col("sha256").bin.encode("hex")).iter_rows())
    stale = {}
    for row in corrections.iter_rows(named=True):
        split = split_of_or_none(row["key"])
        if split not in (None, "unlabeled"):
            stale[row["key"]] = f"it is a {split} image, and only unlabeled ones are corrected"
        elif row["key"] not in known:
            stale[row["key"]] = "the corpus has no such image"
        elif known[row["key"]] != row["sha256"].hex():
            stale[row["key"]] = "the key means another image than when it was corrected"
        elif row["label"] is not None and row["label"] not in classes:
            stale[row["key"]] = f"there is no class '{row['label']}' (there are: {', '.join(classes)})"
    return stale


def prune(path: Path, classes: list[str], unlabeled: Path) -> dict[int, str]:
    """Remove the stale rows of a file; return their keys, and why."""
    import polars as pl

    corrections = read_corrections(path)
    stale = stale_rows(corrections, classes, unlabeled)
    if stale:
        write_corrections(path, corrections.filter(~pl.col("key").is_in(list(stale))))
    return stale


def merge_files(path: Path, other: Path) -> int:
    """Add another file's rows to a file's; return how many were new. Rows of one image have to say the same.

    Raises UserError, naming the image, where they do not.
    """
    import polars as pl

    ours, theirs = read_corrections(path), read_corrections(other)
    by_key = {row["key"]: row for row in ours.iter_rows(named=True)}
    for row in theirs.iter_rows(named=True):
        mine = by_key.get(row["key"])
        if mine is not None and mine["sha256"] != row["sha256"]:
            raise UserError(
                f"key {row['key']}: {path} and {other} mean two images by it, so one is of another corpus; `selftrain "
                "corrections prune` removes the rows that do not fit this one"
            )
        if mine is not None and (mine["action"], mine["label"]) != (row["action"], row["label"]):
            raise UserError(
                f"key {row['key']}: {path} says {describe(mine)}, {other} says {describe(row)}; correct one of them"
            )
    new = theirs.filter(~pl.col("key").is_in(list(by_key)))
    write_corrections(path, pl.concat([ours, new]))
    return len(new)


def write_corrections(path: Path, corrections: "pl.DataFrame") -> None:
    """Write the file whole or not at all; equal rows give equal bytes."""
    schema = no_corrections().schema
    with atomic_path(path) as temporary:
        corrections.select(schema.names()).cast(dict(schema)).sort("key").write_parquet(temporary, compression="zstd")  # type: ignore[arg-type]


def file_digest(path: Path) -> str:
    """A short hash of the file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()[:32]


def decided_by_hand(corrections: "pl.DataFrame", classes: list[str]) -> "pl.DataFrame":
    """``key, kind, to_label``: what ``select`` makes of each correction; ``no_copy`` decides nothing by itself."""
    import polars as pl

    index = pl.DataFrame(
        {"label": classes, "to_label": range(len(classes))}, schema={"label": pl.String, "to_label": pl.Int32}
    )
    kind = pl.when(pl.col("action") == CORRECT).then(pl.lit(CORRECTED)).otherwise(pl.lit(REJECTED))
    deciding = corrections.filter(pl.col("action") != NO_COPY)
    return deciding.join(index, on="label", how="left").select("key", kind.alias("kind"), "to_label")


def no_copies(corrections: "pl.DataFrame") -> list[int]:
    """The keys of images that a person says are no copies."""
    import polars as pl

    return corrections.filter(pl.col("action") == NO_COPY)["key"].to_list()


def describe(row: "dict[str, object]") -> str:
    """A correction in words."""
    return f"{row['action']} to '{row['label']}'" if row["action"] == CORRECT else str(row["action"])


def _describe_schema(schema: "pl.Schema") -> str:
    return ", ".join(f"{name} ({kind})" for name, kind in schema.items())
