"""Image keys: int64 inside, strings at the edges.

A key names a split, a shard and a place in that shard, in decimal digits so that a person
can read it: split (1 digit), shard (8), index (6). It never changes while the image stays in
the corpus, and says nothing about the image's file name, which may hold anything.
"""

SPLITS = ("labeled", "unlabeled", "validation", "test")
LABELED_SPLITS = ("labeled", "validation", "test")
MAX_IMAGES_PER_SHARD = 10**6
MAX_SHARDS = 10**8


def make_key(split: str, shard: int, index: int) -> int:
    """The key of the ``index``-th image ever written to a shard of a split."""
    assert 0 <= shard < MAX_SHARDS and 0 <= index < MAX_IMAGES_PER_SHARD
    return ((SPLITS.index(split) + 1) * MAX_SHARDS + shard) * MAX_IMAGES_PER_SHARD + index


def split_of(key: int) -> str:
    """The split that a key belongs to."""
    return SPLITS[key // (MAX_SHARDS * MAX_IMAGES_PER_SHARD) - 1]


def split_of_or_none(key: int) -> str | None:
    """The split that a key belongs to; None if it is no key at all."""
    return split_of(key) if 1 <= key // (MAX_SHARDS * MAX_IMAGES_PER_SHARD) <= len(SPLITS) else None


def shard_of(key: int) -> int:
    """The number of the shard that a key lies in."""
    return key // MAX_IMAGES_PER_SHARD % MAX_SHARDS


def place_of(key: int) -> int:
    """The place of an image in its shard, among all that were ever written to it."""
    return key % MAX_IMAGES_PER_SHARD


def shard_name(shard: int) -> str:
    """File name of a shard's tar, inside its split's folder."""
    return f"shard-{shard:08d}.tar"


def shard_of_file(name: str) -> int:
    """The number in the name of a shard's tar, or of the pointer in its place."""
    return int(name.removeprefix("shard-").partition(".")[0])


def part_name(shard: int) -> str:
    """File name of the Parquet part that belongs to a shard, in manifests and prediction tables."""
    return f"part-{shard:08d}.parquet"


def shard_of_part(name: str) -> int:
    """The inverse of ``part_name``."""
    return int(name.removeprefix("part-").removesuffix(".parquet"))
