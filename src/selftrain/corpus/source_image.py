"""One image as found, before anything is known of its bytes."""

from collections import Counter
from collections.abc import Callable
from typing import NamedTuple

LONGEST_SUFFIX, MOST_SUFFIXES, OTHER = 10, 50, "others"
"""Of files that are no images, as they are counted."""
ANSWER = "answer-"
"""How the names of the files begin that people labeled (``answers.py``)."""
MAX_BYTES = 2**28
"""Of an image file. What is larger is no image, whatever its header says, and is not read."""


# A tuple travels between processes in a fraction of a dataclass's time.
class SourceImage(NamedTuple):
    """One image as found."""

    source: str
    """Where it was found: a path relative to the ingest root, or ``shard::member``. Unique in its split."""
    class_name: str | None
    read: Callable[[], bytes]
    problem: str | None = None
    """Set when the image cannot be used whatever its bytes are."""
    offset: int | None = None
    """Of its bytes in its shard, where they lie there as they are."""


def count_other(ignored: "Counter[str]", suffix: str) -> None:
    """Count a file that is no image, by its suffix; rare and odd ones together."""
    odd = len(suffix) > LONGEST_SUFFIX or suffix[1:].isdigit() or not suffix.isprintable()
    ignored[OTHER if odd or (suffix not in ignored and len(ignored) >= MOST_SUFFIXES) else suffix] += 1


def told(ignored: "Counter[str]") -> str:
    """The counts of files that are no images, as words; empty where there is none."""
    return ", ".join(f"{number:,} {suffix or 'without suffix'}" for suffix, number in sorted(ignored.items()))


def too_large(size: int) -> str | None:
    """What is wrong with a file of this size; None if nothing is."""
    return None if size <= MAX_BYTES else f"has {size:,} bytes; more than {MAX_BYTES:,} are not read"


def as_text(path: str) -> str:
    """A path as valid UTF-8, whatever bytes its name has."""
    if path.isascii():
        return path
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
