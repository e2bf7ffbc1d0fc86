"""What a corpus has beside its splits: the names of its classes, the pool's truth, copies, and what is broken."""

from pathlib import Path

from selftrain.plumbing.files import read_json

CLASSES, TRUTH, REPEATS, QUARANTINE = "classes.json", "truth.parquet", "duplicates.parquet", "quarantine.parquet"


def classes_of(corpus: Path) -> list[str]:
    """The classes' names, by index. Raises UserError if there is no corpus."""
    names: list[str] = read_json(corpus / CLASSES, "dvc repro ingest")
    return names
