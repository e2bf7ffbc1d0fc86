"""Answers of a person become labeled images: files in the labeled folder, where every teacher learns them.

A correction in ``corrections.parquet`` is learned by the rounds that select its image. An answer is more: it belongs to
the labeled images. The image's own bytes are written to ``<labeled folder>/<class>/``, and a line of ``answers.csv``
says who said so, when, and of which image of the pool. ``ingest`` then takes it in as labeled, and knows the image of
the pool as its duplicate.
"""

import csv
import datetime
import os
from pathlib import Path

from selftrain.corpus.source_image import ANSWER
from selftrain.images.reader import read_rows
from selftrain.params.ingest import IngestConfig
from selftrain.plumbing.dvc_lock import maker_of
from selftrain.plumbing.errors import UserError
from selftrain.plumbing.files import LONGEST_NAME, atomic_path
from selftrain.tables.cells import as_cell, from_cell
from selftrain.tables.corpus import REPEATS, classes_of
from selftrain.tables.corrections import CORRECT, check_corrections, read_corrections, write_corrections
from selftrain.tables.manifest import find_rows
from selftrain.tables.parquet import read_frame

ANSWERS = "answers.csv"
"""The table of answers."""
KEEPS_ANSWERS = "digits"
"""The stage that writes a labeled folder and leaves answers in it."""
COLUMNS = ("file", "label", "who", "when", "pool_image", "sha256")


def move_to_labeled(corrections: Path, corpus: Path, config: IngestConfig) -> list[Path]:
    """Move the corrected images of a corrections file to the labeled folder; return the files that were written.

    Rejections stay in the file, and so do copies of held-out images, which are not to be learned. Raises UserError if
    the labeled images are no folder or are made by a stage, or if the file does not fit the corpus.
    """
    import polars as pl

    table, classes = read_corrections(corrections), classes_of(corpus)
    check_corrections(table, corrections, classes, corpus / "unlabeled")
    repeats = read_frame(corpus / REPEATS, ["key", "kind"])
    leaks = repeats.filter(pl.col("kind") == "leak")["key"].implode()
    moved = (pl.col("action") == CORRECT) & ~pl.col("key").is_in(leaks)
    answers = table.filter(moved)
    if copies := len(table.filter(pl.col("action") == CORRECT)) - len(answers):
        print(f"{corrections}: {copies} corrected images are copies of validation or test images and stay there")
    if not len(answers):
        return []
    root = Path(config.root)
    folder = root / (config.labeled.images or [""])[0]
    if not config.labeled.images or not folder.is_dir():
        raise UserError("ingest.labeled.images: is no folder of class folders; add the answers to your shards yourself")
    maker = maker_of(folder)
    if maker not in (None, KEEPS_ANSWERS):
        raise UserError(f"{folder}: the stage '{maker}' makes it, and would remove the answers; give it them yourself")
    images = find_rows(corpus / "unlabeled", answers["key"].to_list())
    sources = dict(images.select("key", "source").iter_rows())
    rows = {row["key"]: row for row in answers.iter_rows(named=True)}
    written, lines = [], []
    for key, data in read_rows(corpus / "unlabeled", images):
        row = rows[key]
        path = folder / row["label"] / f"{ANSWER}{row['sha256'].hex()[:12]}-{_end_of(Path(sources[key]).name)}"
        with atomic_path(path) as temporary:
            temporary.write_bytes(data)
        written.append(path)
        when = row["when"] or datetime.datetime.now(datetime.UTC).replace(microsecond=0)
        file = os.path.relpath(path, root)
        texts = [as_cell(text) for text in (str(file), row["label"], row["who"] or "")]
        lines.append([*texts, when.isoformat(), as_cell(sources[key]), row["sha256"].hex()])
    _append(root, lines)
    # Last: a kill before it leaves the answers in both places, and they are moved again.
    write_corrections(corrections, table.filter(~moved))
    return sorted(written)


def _end_of(name: str) -> str:
    """A file's name, or as much of its end as leaves room for what is put before it."""
    while len(os.fsencode(name)) > LONGEST_NAME - len(ANSWER) - 20:
        name = name[1:]
    return name


def _append(root: Path, lines: list[list[str]]) -> None:
    """Add lines to the table. What was answered before of the same images goes, with its files."""
    path, known = root / ANSWERS, list[list[str]]()
    if path.is_file():
        with path.open(newline="", encoding="utf-8") as file:
            known = [row for row in csv.reader(file) if row][1:]
    files, images = {row[0] for row in lines}, {row[-1] for row in lines}  # by sha256
    for row in known:
        if row[-1] in images and row[0] not in files:
            (root / from_cell(row[0])).unlink(missing_ok=True)
    with atomic_path(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        writer.writerows([row for row in known if row[-1] not in images] + lines)
