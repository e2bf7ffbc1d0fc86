"""Image files for FiftyOne, which shows files and not tars: only those that a view needs."""

from pathlib import Path

from selftrain.images.decode import EXTENSIONS, decode
from selftrain.images.reader import read_rows
from selftrain.plumbing.files import atomic_path
from selftrain.tables.manifest import find_rows

NOT_IN_BROWSERS = ("TIFF", "HEIF")
"""Formats that are shown as PNG."""


def piece_of_name(key: int, sha256: bytes) -> str:
    """How the name of an image's file begins."""
    return f"{key}-{sha256.hex()[:12]}."


def extract(split_folder: Path, keys: set[int], media: Path) -> dict[int, Path]:
    """Write the images that are not there yet; key → absolute path for those that the corpus has.

    The file's name holds a piece of the image's hash, so another corpus's image of the same key is another file.
    """
    media = media.resolve()
    media.mkdir(parents=True, exist_ok=True)
    rows = find_rows(split_folder, keys)
    formats = dict(rows.select("key", "format").iter_rows())
    shown_as = {name: "PNG" if name in NOT_IN_BROWSERS else name for name in EXTENSIONS}
    files = {
        key: media / f"{piece_of_name(key, digest)}{EXTENSIONS[shown_as[formats[key]]]}"
        for key, digest in rows.select("key", "sha256").iter_rows()
    }
    there = {path.name for path in media.iterdir()}
    missing = [key for key, path in files.items() if path.name not in there]
    for key, data in read_rows(split_folder, rows.filter(rows["key"].is_in(missing))):
        with atomic_path(files[key], durable=False) as temporary:
            if shown_as[formats[key]] != formats[key]:
                decode(data).save(temporary, "PNG")
            else:
                temporary.write_bytes(data)
    return files
