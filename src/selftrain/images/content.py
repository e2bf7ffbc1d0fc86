"""The hash that an image's bytes are compared with whenever they are read."""

import xxhash


def content_hash(data: bytes) -> int:
    """xxh3-64 of an image's bytes, signed as Parquet has it: ``xxh3`` in the manifest."""
    return int.from_bytes(xxhash.xxh3_64_digest(data), "big", signed=True)


def is_whole(data: bytes, xxh3: int) -> bool:
    """Whether an image's bytes are those that were ingested."""
    return content_hash(data) == xxh3
