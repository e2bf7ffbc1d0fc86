"""A corpus for one training: labeled images, validation, and a pool if there is one; no test images."""

from collections import Counter
from pathlib import Path

from selftrain.corpus.append import update_split
from selftrain.corpus.duplicates import write_duplicates
from selftrain.corpus.sources import class_folders, find_images
from selftrain.corpus.splits import cut
from selftrain.params.ingest import IngestConfig, Source
from selftrain.plumbing.engines import Here
from selftrain.plumbing.errors import UserError
from selftrain.plumbing.files import write_json
from selftrain.tables.corpus import CLASSES, REPEATS

HELD_OUT = 0.2
"""Share of the labeled images that is cut for validation."""


def ingest_small(labeled: Path, pool: Path | None, validation: Path | None, corpus: Path, seed: int) -> None:
    """Bring the images into ``corpus``, append-only as `ingest` does; broken ones are printed and left out.

    Raises UserError for folders that are not there or have no usable images.
    """
    ignored: Counter[str] = Counter()
    classes = class_folders(Path(), [str(labeled.resolve())])
    if len(classes) < 2:
        raise UserError(f"{labeled}: has {len(classes)} class folders; a classifier needs two or more")
    corpus.mkdir(parents=True, exist_ok=True)
    write_json(corpus / CLASSES, classes)
    found = find_images(Path(), [str(labeled.resolve())], labeled=True, classes=classes, ignored=ignored)
    if validation is None:
        splits = dict(cut(found, {"validation": HELD_OUT}, seed))
    else:
        given = find_images(Path(), [str(validation.resolve())], labeled=True, classes=classes, ignored=ignored)
        splits = {"labeled": list(found), "validation": list(given)}
    if pool is not None:
        unlabeled = find_images(Path(), [str(pool.resolve())], labeled=False, classes=classes, ignored=ignored)
        splits["unlabeled"] = list(unlabeled)
    source = Source(images=["."])
    limits = IngestConfig(root=".", labeled=source, unlabeled=source, validation=source, test=source)
    for split, images in splits.items():
        count = update_split(
            corpus / split,
            split,
            images,
            classes,
            images_per_shard=limits.images_per_shard,
            max_pixels=limits.max_pixels,
        )
        if count.kept + count.added == 0:
            raise UserError(f"{split}: none of its {count.found} images can be used")
        if count.quarantined:
            first, reason = count.quarantined[0]
            print(f"{split}: {len(count.quarantined)} broken images left out; the first is {first}: {reason}")
    (corpus / "test" / "manifest").mkdir(parents=True, exist_ok=True)
    if pool is not None:
        write_duplicates(corpus, corpus / REPEATS, near=True, engine=Here())
