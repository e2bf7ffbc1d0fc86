"""The FiftyOne dataset: one sample an image, a group of fields a run, and what people add stays."""

from pathlib import Path
from typing import Any

from selftrain.inspection import fields
from selftrain.inspection.brain import run_brain
from selftrain.inspection.corrections import FIELD, TAGS, import_corrections
from selftrain.inspection.samples import bring_samples, claim, of_other_splits
from selftrain.inspection.tables import Pool, rows_of, sample_views, tally_rounds
from selftrain.inspection.views import SavedView, all_views
from selftrain.params.browse import BrowseConfig
from selftrain.plumbing.files import read_json
from selftrain.plumbing.progress import progress_bar
from selftrain.tables.corpus import classes_of
from selftrain.tables.corrections import read_corrections
from selftrain.tables.keys import SPLITS, split_of, split_of_or_none
from selftrain.tables.truth import name_of_no_class

UNLABELED = "unlabeled"


def build_dataset(config: BrowseConfig, pool: Pool, media: Path, corrections: Path) -> Any:
    """Bring the dataset up to date and return it.

    Samples are known by their ``key``. Those that no view needs any more go, unless somebody tagged or corrected them;
    fields of runs are written anew, keeping label tags; anything else on a sample is left as it is.
    """
    import fiftyone as fo

    dataset = fo.load_dataset(config.dataset) if fo.dataset_exists(config.dataset) else fo.Dataset(config.dataset)
    claim(dataset, Path.cwd())
    dataset.persistent = True
    classes = classes_of(pool.corpus)
    views = all_views(pool.runs, fields.truth_is_known(pool.corpus), name_of_no_class(classes))
    sampled = sample_views(pool, views, config.images_per_view)
    wanted = set().union(*(keys for keys, _ in sampled.values()))
    if corrections.exists():
        keys_said = read_corrections(corrections)["key"].to_list()
        wanted |= {key for key in keys_said if split_of_or_none(key) == UNLABELED}
    wanted |= fields.repeated(pool.corpus, wanted) | of_other_splits(pool.corpus, config.images_per_view)

    keys = bring_samples(dataset, wanted, pool.corpus, media)
    fields.forget_runs(dataset, pool.runs)
    fields.declare(dataset, pool.runs)
    shown = {split: {key for key in keys if split_of(key) == split} for split in SPLITS}
    with progress_bar("fiftyone fields", total=len(pool.runs)) as advance:
        for run in pool.runs:
            fields.write_predictions(dataset, run, shown, classes)
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
        print(import_corrections(dataset, corrections, pool.corpus, prefer="app", strict=False))
    return dataset


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
        _, count = sampled[view.name]
        # Also those that are here for other views, and not those that a copy is shown beside.
        here = shown.match(ViewField("split") == UNLABELED)
        there = len(here.match(ViewField("repeats").exists()) if view.shows_pairs else here)
        how_many = f"all {count:,}" if there == count else f"{there:,} of {count:,}"
        dataset.save_view(view.name, shown, description=f"{view.description} ({how_many} images)", overwrite=True)
    corrected = dataset.match(ViewField("tags").contains(list(TAGS)) | ViewField(f"{FIELD}.label").exists())
    dataset.save_view("corrections", corrected, description="what was said of images in the App", overwrite=True)
    dataset.info = {**dataset.info, "views": sorted(ours)}
