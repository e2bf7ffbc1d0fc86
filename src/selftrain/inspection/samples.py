"""The dataset's samples: one an image, known by its key and by its file's name, which holds a piece of its hash."""

from pathlib import Path
from typing import Any

import numpy as np

from selftrain.counters import Stream, mix
from selftrain.inspection.corrections import FIELD, forget
from selftrain.inspection.media import extract
from selftrain.plumbing.errors import UserError
from selftrain.tables.keys import LABELED_SPLITS, SPLITS, split_of
from selftrain.tables.manifest import find_rows, scan_manifest

PROJECT = "project"


def claim(dataset: Any, project: Path) -> None:
    """Note whose dataset it is. Raises UserError as ``check_owner``."""
    check_owner(dataset, project)
    dataset.info = {**dataset.info, PROJECT: str(project.resolve())}


def check_owner(dataset: Any, project: Path) -> None:
    """Raises UserError if a dataset is that of another project that is still there, or if its samples are not ours."""
    owner = str(project.resolve())
    if PROJECT not in dataset.info and len(dataset) and "key" not in dataset.get_field_schema():
        raise UserError(
            f"FiftyOne has a dataset '{dataset.name}' that selftrain did not make; give this project's another name, "
            "`browse.dataset` in params.yaml"
        )
    other = dataset.info.get(PROJECT, owner)
    if other != owner and Path(other).is_dir():
        raise UserError(
            f"FiftyOne's dataset '{dataset.name}' is that of {other}; give this project's another name, "
            "`browse.dataset` in params.yaml, or remove that folder if it is no longer used"
        )


def of_other_splits(corpus: Path, count: int) -> set[int]:
    """A random sample of each labeled split, the same every time."""
    keys: set[int] = set()
    for split in LABELED_SPLITS:
        of_split = scan_manifest(corpus / split).select("key").collect()["key"].to_numpy()
        keys.update(of_split[np.argsort(mix(0, Stream.APP_SAMPLE, of_split), kind="stable")[:count]].tolist())
    return keys


def bring_samples(dataset: Any, wanted: set[int], corpus: Path, media: Path) -> set[int]:
    """Make the samples those that are wanted, and return the keys of all that are there now.

    Samples that are not wanted go, unless somebody tagged or corrected them; an image that the corpus no longer has, or
    has another one in the place of, goes in any case.
    """
    import fiftyone as fo

    present = _remove_idle(dataset, wanted)
    files: dict[int, Path] = {}
    sources: dict[int, str] = {}
    for split in SPLITS:
        of_split = {key for key in wanted | present if split_of(key) == split}
        files |= extract(corpus / split, of_split, media)
        sources |= dict(find_rows(corpus / split, of_split).select("key", "source").iter_rows())
    there = dict(zip(dataset.values("key"), dataset.values("filepath"), strict=True)) if present else {}
    gone = {key for key in present if key not in files or Path(there[key]).name != files[key].name}
    _remove(dataset, gone)
    present -= gone
    moved = {key: str(files[key]) for key in present if there[key] != str(files[key])}
    if moved:
        dataset.set_values("filepath", moved, key_field="key")
    new = [
        fo.Sample(filepath=str(files[key]), key=key, split=split_of(key), source=sources[key])
        for key in sorted(files.keys() - present)
    ]
    if new:
        # What others said of them came while they were not here: nobody took it back.
        forget(dataset, files.keys() - present)
        dataset.add_samples(new, progress=False)
    if "key" not in dataset.list_indexes():
        dataset.create_index("key", unique=True)
    return set(files)


def _remove_idle(dataset: Any, wanted: set[int]) -> set[int]:
    """Remove samples that no view needs and nobody touched; return the keys of those that stay."""
    import fiftyone as fo
    from fiftyone import ViewField

    schema = dataset.get_field_schema()
    if "key" not in schema:
        return set()
    if "split" not in schema:  # made by an older version
        dataset.add_sample_field("split", fo.StringField)
        dataset.set_values("split", [split_of(key) for key in dataset.values("key")])
    touched = set(dataset.match_tags(dataset.distinct("tags")).values("key")) if dataset.distinct("tags") else set()
    label_tags = dataset.count_label_tags()
    if label_tags:
        touched |= set(dataset.select_labels(tags=list(label_tags)).values("key"))
    if FIELD in schema:
        touched |= set(dataset.match(ViewField(f"{FIELD}.label").exists()).values("key"))
    stay = set(dataset.values("key")) & (wanted | touched)
    _remove(dataset, set(dataset.values("key")) - stay)
    return stay


def _remove(dataset: Any, keys: set[int]) -> None:
    from fiftyone import ViewField

    if keys:
        dataset.delete_samples(dataset.match(ViewField("key").is_in(sorted(keys))))
        forget(dataset, keys)
