"""What a corpus has beside its splits: the names of its classes, copies, and what is broken.

Hidden truth is in ``truth.py``, which nothing that trains may import.
"""

from pathlib import Path

from selftrain.plumbing.files import read_json

CLASSES, REPEATS, QUARANTINE = "classes.json", "duplicates.parquet", "quarantine.parquet"


def classes_of(corpus: Path) -> list[str]:
    """The classes' names, by index. Raises UserError if there is no corpus."""
    names: list[str] = read_json(corpus / CLASSES, "dvc repro ingest")
    return names
