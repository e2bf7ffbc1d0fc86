"""Image files for FiftyOne, which shows files and not tars: only those that a view needs."""

from pathlib import Path

from selftrain.corpus.decode import EXTENSIONS
from selftrain.corpus.lookup import read_images
from selftrain.files import atomic_path


def extract(split_folder: Path, keys: set[int], media: Path) -> dict[int, Path]:
    """Write the images that are not there yet; key → absolute path for all of them."""
    media.mkdir(parents=True, exist_ok=True)
    there = {int(path.stem): path.resolve() for path in media.iterdir() if path.stem.isdigit()}
    for key, image_format, data in read_images(split_folder, keys - there.keys()):
        path = media / f"{key}.{EXTENSIONS[image_format]}"
        with atomic_path(path, durable=False) as temporary:
            temporary.write_bytes(data)
        there[key] = path.resolve()
    return {key: there[key] for key in keys if key in there}
