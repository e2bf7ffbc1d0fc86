"""The search for held-out images' hashes in a pool's, held against comparing all pairs.

    python benchmarks/speed/hashes.py                     # 4 million images in the pool, a minute
    python benchmarks/speed/hashes.py --pool 100000

Each held-out image has a hash for every frame that it may be seen through. `ingest` compares so many of both at a time.
"""

import argparse

import numpy as np
from measure import QUICK, Row, Table, take_turns

from selftrain.corpus.copies import FRAMES
from selftrain.corpus.near import HELD_OUT, MAX_DISTANCE, POOL_CHUNK
from selftrain.corpus.near_hashes import near_pairs

SOME = 64
"""Held-out hashes of which all pairs are compared."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pool", type=int, default=10_000 if QUICK else POOL_CHUNK)
    parser.add_argument("--held-out", type=int, default=100 if QUICK else HELD_OUT)
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    pool = rng.integers(0, 2**64, options.pool, np.uint64)
    others = rng.integers(0, 2**64, options.held_out * 2 * len(FRAMES), np.uint64)

    def all_pairs() -> None:
        for one in others[:SOME]:
            np.flatnonzero(np.bitwise_count(pool ^ one) <= MAX_DISTANCE)

    works = {"ours": lambda: near_pairs(pool, others, MAX_DISTANCE), "all pairs": all_pairs}
    seconds = take_turns(works, 1 if QUICK else 3)
    ours, theirs = len(pool) * len(others) / seconds["ours"], len(pool) * SOME / seconds["all pairs"]
    table = Table("hashes")
    what = f"{options.held_out:,} held-out images, {options.pool:,} in the pool"
    table.rows.append(Row(what, "all pairs", ours, theirs, "pairs/s"))
    table.write()


if __name__ == "__main__":
    main()
