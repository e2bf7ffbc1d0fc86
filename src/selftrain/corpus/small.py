"""A corpus for one training: labeled images, validation, and a pool if there is one; no test images."""

from collections import Counter
from pathlib import Path

from selftrain.corpus.append import update_split
from selftrain.corpus.duplicates import write_duplicates
from selftrain.corpus.ingest import drop_splits_of_other_classes
from selftrain.corpus.source_image import told
from selftrain.corpus.sources import class_folders, find_images
from selftrain.corpus.splits import cut
from selftrain.params.ingest import IngestConfig
from selftrain.plumbing.engines import Here, all_cores
from selftrain.plumbing.errors import UserError
from selftrain.plumbing.files import write_json
from selftrain.plumbing.locks import sole_writer
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
    for name in class_folders(Path(), [str(validation.resolve())]) if validation is not None else []:
        if name not in classes:
            raise UserError(f"{validation}: the class '{name}' is no folder of {labeled}")
    with sole_writer(corpus):
        _bring(labeled, pool, validation, corpus, classes, seed, ignored)
    if ignored:
        print(f"no images: {told(ignored)}")


def _bring(
    labeled: Path,
    pool: Path | None,
    validation: Path | None,
    corpus: Path,
    classes: list[str],
    seed: int,
    ignored: Counter[str],
) -> None:
    drop_splits_of_other_classes(corpus, classes)
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
    for split, images in splits.items():
        count = update_split(
            corpus / split,
            split,
            images,
            classes,
            images_per_shard=IngestConfig.model_fields["images_per_shard"].default,
            max_pixels=IngestConfig.model_fields["max_pixels"].default,
            engine=all_cores(),
        )
        if count.kept + count.added == 0:
            raise UserError(f"{split}: none of its {count.found} images can be used")
        if count.quarantined:
            first, reason = count.quarantined[0]
            print(f"{split}: {len(count.quarantined)} broken images left out; the first is {first}: {reason}")
    (corpus / "test" / "manifest").mkdir(parents=True, exist_ok=True)
    if pool is not None:
        write_duplicates(corpus, corpus / REPEATS, near=True, engine=Here())
