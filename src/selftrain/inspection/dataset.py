"""The FiftyOne dataset: one sample an image, a group of fields a run, and what people add stays."""

from pathlib import Path
from typing import Any

import numpy as np

from selftrain.corpus.keys import SPLITS, split_of
from selftrain.corpus.lookup import find_rows
from selftrain.corpus.manifest import scan_manifest
from selftrain.counters import mix
from selftrain.files import read_json
from selftrain.inspection import fields
from selftrain.inspection.brain import run_brain
from selftrain.inspection.config import BrowseConfig
from selftrain.inspection.corrections import FIELD, TAG, import_corrections
from selftrain.inspection.media import extract
from selftrain.inspection.tables import Pool, rows_of, sample_views, tally_rounds
from selftrain.inspection.views import SavedView, all_views
from selftrain.predictions.corrections import read_corrections
from selftrain.progress import progress_bar

UNLABELED = "unlabeled"


def build_dataset(config: BrowseConfig, pool: Pool, media: Path, corrections: Path) -> Any:
    """Bring the dataset up to date and return it.

    Samples are known by their ``key``. Those that no view needs any more go, unless somebody tagged or corrected them;
    fields of runs are written anew, keeping label tags; anything else on a sample is left as it is.
    """
    import fiftyone as fo

    dataset = fo.load_dataset(config.dataset) if fo.dataset_exists(config.dataset) else fo.Dataset(config.dataset)
    dataset.persistent = True
    classes = read_json(pool.corpus / "classes.json", "dvc repro ingest")
    views = all_views(pool.runs)
    sampled = sample_views(pool, views, config.images_per_view)
    wanted = set().union(*(keys for keys, _ in sampled.values()))
    if corrections.exists():
        wanted |= set(read_corrections(corrections)["key"].to_list())
    wanted |= fields.repeated(pool.corpus, wanted) | _other_splits(pool.corpus, config.images_per_view)

    keys = _bring_samples(dataset, wanted, pool.corpus, media)
    fields.declare(dataset, pool.runs)
    shown = {split: {key for key in keys if split_of(key) == split} for split in SPLITS}
    with progress_bar("fiftyone fields", total=len(pool.runs)) as advance:
        for run in pool.runs:
            fields.write_opinions(dataset, run, shown, classes)
            advance()
    fields.write_decisions(dataset, pool.runs, rows_of(pool, shown[UNLABELED]), classes)
    fields.write_truth(dataset, pool.corpus, shown, classes)
    fields.write_pairs(dataset, pool.corpus, keys)
    run_brain(dataset, pool.runs, config, len(classes))
    _save_views(dataset, views, sampled)
    fields.arrange_sidebar(dataset, pool.runs)
    images = int(read_json(pool.corpus / "summary.json", "dvc repro ingest")[UNLABELED]["images"])
    dataset.info = {
        **dataset.info,
        "classes": classes,
        "sample": f"{len(shown[UNLABELED]):,} of {images:,} unlabeled images, at most {config.images_per_view:,} a view",  # noqa: E501
        "rounds": tally_rounds(pool).to_dicts() if any(run.selection for run in pool.runs) else [],
    }
    dataset.description = f"The pseudo-labels of {' → '.join(run.name for run in pool.runs)}. {dataset.info['sample']}."
    dataset.save()
    if corrections.exists():
        print(import_corrections(dataset, corrections, prefer="app"))
    return dataset


def _other_splits(corpus: Path, count: int) -> set[int]:
    """A random sample of each labeled split, the same every time."""
    keys: set[int] = set()
    for split in SPLITS:
        if split != UNLABELED:
            own = scan_manifest(corpus / split).select("key").collect()["key"].to_numpy()
            keys.update(own[np.argsort(mix(0, own), kind="stable")[:count]].tolist())
    return keys


def _bring_samples(dataset: Any, wanted: set[int], corpus: Path, media: Path) -> set[int]:
    """Make the samples those that are wanted, and return the keys of all that are there now."""
    import fiftyone as fo

    present = _remove_stale(dataset, wanted)
    files: dict[int, Path] = {}
    sources: dict[int, str] = {}
    for split in SPLITS:
        own = {key for key in wanted | present if split_of(key) == split}
        files |= extract(corpus / split, own, media)
        sources |= dict(find_rows(corpus / split, own).select("key", "source").iter_rows())
    # An image that the corpus no longer has, or has another one in the place of.
    there = dict(zip(dataset.values("key"), dataset.values("filepath"), strict=True)) if present else {}
    replaced = {key for key in present if there[key] != str(files.get(key))}
    _remove(dataset, replaced)
    present -= replaced
    new = [
        fo.Sample(filepath=str(files[key]), key=key, split=split_of(key), source=sources[key])
        for key in sorted(files.keys() - present)
    ]
    if new:
        dataset.add_samples(new, progress=False)
    if "key" not in dataset.list_indexes():
        dataset.create_index("key", unique=True)
    return set(files)


def _remove_stale(dataset: Any, wanted: set[int]) -> set[int]:
    """Remove samples that no view needs and nobody tagged or corrected; return the keys of those that stay."""
    from fiftyone import ViewField

    schema = dataset.get_field_schema()
    if "key" not in schema or "split" not in schema:
        _remove(dataset, set(dataset.values("key")) if "key" in schema else set())
        return set()
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


def _save_views(dataset: Any, views: list[SavedView], sampled: dict[str, tuple[set[int], int]]) -> None:
    """Save the views, each telling how much of it is here; those of an earlier build that are no more, go."""
    from fiftyone import ViewField

    ours = {view.name for view in views}
    for name in set(dataset.info.get("views", [])) - ours:
        if dataset.has_saved_view(name):
            dataset.delete_saved_view(name)
    for view in views:
        shown = dataset.match(view.samples(ViewField))
        if view.order is not None:
            shown = shown.sort_by(view.order)
        keys, count = sampled[view.name]
        told = f"all {count:,}" if len(keys) == count else f"{len(keys):,} of {count:,}"
        dataset.save_view(view.name, shown, description=f"{view.description} ({told} images)", overwrite=True)
    corrected = dataset.match(ViewField("tags").contains(TAG) | ViewField(f"{FIELD}.label").exists())
    dataset.save_view("corrections", corrected, description="rejected or relabeled in the App", overwrite=True)
    dataset.info = {**dataset.info, "views": sorted(ours)}
