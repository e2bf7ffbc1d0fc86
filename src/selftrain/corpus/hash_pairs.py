"""Pairs of images in the pool whose difference hashes, one perhaps mirrored, are nearly equal.

Of 64 bits in six blocks, two at least are equal if no more than four bits differ (the pigeonhole principle). So pairs
that are equal in two blocks are all that have to be compared, and a database joins them: 15 times, once for each two
blocks, each a unit of work by itself (Manku, Jain and Das Sarma 2007, "Detecting near-duplicates for web crawling").
"""

import itertools
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from selftrain.corpus.near import MIN_BITS, MIN_SIDE
from selftrain.plumbing.engine import Engine
from selftrain.plumbing.spill import querying, spill_folder
from selftrain.tables.manifest import manifest_parts

if TYPE_CHECKING:
    import polars as pl
    import pyarrow as pa

MAX_DISTANCE = 4
"""Bits, of 64."""
BLOCKS = 6
MEMORY_LIMIT, SHARED_LIMIT = "4GB", "1GB"
"""Of a search that is alone, and of one of a cluster's, of which a machine may run one a core; the rest goes to the
disk."""
CROWD = 200
"""Images of one hash that each of them is compared with, before and after it; an image of a hash near it is compared
with those that have about its place among their like. Of a crowd, such as logos on white, all
pairs would be too many; those of altered copies of one picture are a chain all the same."""

SHOWN = """
CREATE TABLE shown AS
SELECT key, xxh3, width::BIGINT * height AS area, dhash, dhash_mirrored,
    row_number() OVER (PARTITION BY dhash ORDER BY key) AS place
FROM read_parquet($parts)
WHERE least(width, height) >= $min_side AND greatest(bit_count(dhash), bit_count(dhash_mirrored)) >= $min_bits
    AND key NOT IN (SELECT key FROM left_out)
"""
# Signed and unsigned numbers of 64 bits have the same bits.
PAIRS = """
WITH seen AS (
    SELECT key, xxh3, area, place, dhash AS hash FROM shown
    UNION ALL SELECT key, xxh3, area, place, dhash_mirrored FROM shown
)
SELECT one.key, other.key AS other_key, one.xxh3, other.xxh3 AS other_xxh3, one.area, other.area AS other_area
FROM shown AS one JOIN seen AS other ON (one.dhash & $mask) = (other.hash & $mask)
WHERE one.key < other.key AND abs(one.place - other.place) <= $crowd
    AND bit_count(xor(one.dhash, other.hash)) <= $max_distance
    AND len(list_filter($earlier, lambda mask: (xor(one.dhash, other.hash) & mask) = 0)) = 0
"""
CROWDED = """
SELECT coalesce(sum(images), 0)::BIGINT FROM (SELECT count(*) AS images FROM shown GROUP BY dhash) WHERE images > $crowd
"""


def hash_pairs(split_folder: Path, left_out: set[int], engine: Engine) -> "pl.DataFrame":
    """``key, other_key`` of the pairs, sorted, the smaller key first, and ``xxh3, other_xxh3, area, other_area``.

    Images that ``near.comparable`` leaves out and those in ``left_out`` are in none. Says how many images have the
    hash of a crowd.
    """
    import polars as pl

    make_work = partial(PairSearch, split_folder, np.array(sorted(left_out), np.int64), engine.shares_memory)
    found, crowded = [], 0
    for _, (pairs, crowded) in engine.done(make_work, masks(), _name, "pairs of hashes"):  # noqa: B007
        found.append(pl.DataFrame(pairs))
    if crowded:
        print(
            f"in the pool: {crowded:,} images look alike from afar, more than {CROWD} at a time; copies among them, "
            f"and of images nearly like them, were looked for {CROWD} before and after each"
        )
    return pl.concat(found).unique(["key", "other_key"]).sort("key", "other_key")


def masks() -> list[int]:
    """A mask for each choice of blocks that may be the equal ones, as signed numbers of 64 bits."""
    ends = [round(64 * block / BLOCKS) for block in range(BLOCKS + 1)]
    blocks = [2**end - 2**start for start, end in itertools.pairwise(ends)]
    chosen = (sum(some) for some in itertools.combinations(blocks, BLOCKS - MAX_DISTANCE))
    return [mask - 2**64 if mask >= 2**63 else mask for mask in chosen]


class PairSearch:
    """The hashes of a split in a database, which may be larger than memory."""

    def __init__(self, split_folder: Path, left_out: "np.ndarray[tuple[int], np.dtype[np.int64]]", alone: bool) -> None:
        import duckdb
        import pyarrow as pa

        self._spill = spill_folder()
        settings: dict[str, Any] = {"memory_limit": MEMORY_LIMIT if alone else SHARED_LIMIT}
        if not alone:
            settings["threads"] = 1
        self._connection = duckdb.connect(config=settings | {"temp_directory": self._spill.name})
        self._connection.register("left_out", pa.table({"key": left_out}))
        parts = [str(part) for part in manifest_parts(split_folder)]
        with querying(self._spill.name):
            self._connection.execute(SHOWN, {"parts": parts, "min_side": MIN_SIDE, "min_bits": MIN_BITS})
        ((self._crowded,),) = self._connection.execute(CROWDED, {"crowd": CROWD}).fetchall()

    def __call__(self, mask: int) -> "tuple[pa.Table, int]":
        """The pairs whose hashes are equal under a mask and under none before it, and how many images crowd."""
        before = masks()[: masks().index(mask)]
        asked = {"mask": mask, "earlier": before, "max_distance": MAX_DISTANCE, "crowd": CROWD}
        with querying(self._spill.name):
            return self._connection.sql(PAIRS, params=asked).to_arrow_table(), self._crowded


def _name(mask: int) -> str:
    return f"pairs of hashes that are equal in the bits {mask & (2**64 - 1):016x}"
