"""What was found of images and of pairs, by their bytes' hashes: nothing is looked at again that has not changed.

The files lie outside the corpus, under ``.selftrain/near``. Without them the same is found in more time.
"""

import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import PIL
from numpy.typing import NDArray

from selftrain.code import modules_digest
from selftrain.images.opencv import cv2
from selftrain.plumbing.files import as_file_name
from selftrain.plumbing.locks import WORK
from selftrain.tables.parquet import read_frame, stamp, write_arrow

if TYPE_CHECKING:
    import polars as pl

Int64Array = NDArray[np.int64]

FOLDER = WORK / "near"
MADE_BY = b"selftrain.made_by"
SAVE_EVERY = 60.0
"""Seconds after which what was found so far is written: a killed ingest goes on from there."""


class Verdicts:
    """The agreement of pairs of images."""

    def __init__(self, corpus: Path, name: str) -> None:
        import polars as pl

        schema = {"one": pl.Int64, "other": pl.Int64, "agreement": pl.Float32}
        self._file = _Remembered(corpus, name, pl.DataFrame(schema=schema))

    def of(self, pairs: Int64Array) -> NDArray[np.float32]:
        """The agreement of pairs of hashes (N, 2); NaN where nobody looked yet."""
        import polars as pl

        asked = pl.DataFrame({"one": pairs[:, 0], "other": pairs[:, 1]})
        found = asked.join(self._file.frame, on=["one", "other"], how="left", maintain_order="left")
        return found["agreement"].fill_null(float("nan")).to_numpy()

    def add(self, pairs: Int64Array, agreements: list[float]) -> None:
        """Remember pairs that were unknown."""
        import polars as pl

        self._file.add(
            pl.DataFrame(
                {"one": pairs[:, 0], "other": pairs[:, 1], "agreement": pl.Series(agreements, dtype=pl.Float32)}
            )
        )

    def save(self) -> None:
        """Write what was added."""
        self._file.save()


class FrameHashes:
    """The difference hashes of an image through every frame, (frames,) each."""

    def __init__(self, corpus: Path) -> None:
        import polars as pl

        self._file = _Remembered(corpus, "frames", pl.DataFrame(schema={"content": pl.Int64, "hashes": pl.Binary}))
        self._known: dict[int, bytes] = dict(self._file.frame.iter_rows())

    def get(self, content: int) -> NDArray[np.uint64] | None:
        """An image's, by its bytes' hash; None if they were not made yet."""
        found = self._known.get(content)
        return None if found is None else np.frombuffer(found, np.uint64)

    def add(self, content: int, hashes: NDArray[np.uint64]) -> None:
        """Remember an image's."""
        import polars as pl

        self._known[content] = hashes.tobytes()
        self._file.add(pl.DataFrame({"content": [content], "hashes": [hashes.tobytes()]}))

    def save(self) -> None:
        """Write what was added."""
        self._file.save()


class _Remembered:
    """A table that grows; one that other code made, or that is damaged, is begun anew."""

    def __init__(self, corpus: Path, name: str, empty: "pl.DataFrame") -> None:
        self._path = FOLDER / as_file_name(corpus.resolve()) / f"{name}.parquet"
        libraries = f"opencv {cv2.__version__}, pillow {PIL.__version__}"
        self._made_by = f"{modules_digest(('corpus.copies', 'images.decode'))} {libraries}"
        there = stamp(self._path, MADE_BY) == self._made_by
        self.frame = read_frame(self._path, empty.columns) if there else empty
        self._added: list[pl.DataFrame] = []
        self._saved_at = time.monotonic()

    def add(self, rows: "pl.DataFrame") -> None:
        self._added.append(rows)
        if time.monotonic() - self._saved_at > SAVE_EVERY:
            self.save()

    def save(self) -> None:
        import polars as pl

        if not self._added:
            return
        key = self.frame.columns[:-1]
        self.frame = pl.concat([self.frame, *self._added]).unique(key, keep="first", maintain_order=True)
        self._added.clear()
        self._saved_at = time.monotonic()
        table = self.frame.to_arrow(compat_level=pl.CompatLevel.oldest())
        write_arrow(table.replace_schema_metadata({MADE_BY: self._made_by.encode()}), self._path)
