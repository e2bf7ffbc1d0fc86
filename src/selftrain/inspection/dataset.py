"""The FiftyOne dataset: one sample an image, a field a run, and what people add stays."""

from pathlib import Path
from typing import Any

from selftrain.corpus.truth import NO_CLASS
from selftrain.files import read_json
from selftrain.inspection.config import BrowseConfig
from selftrain.inspection.media import extract
from selftrain.inspection.rounds import Shown
from selftrain.inspection.tables import images_to_show, opinions, saved_views
from selftrain.inspection.views import NO_CLASS_NAME, copies_field, decision_field
from selftrain.predictions.selection import scan_selection
from selftrain.progress import progress_bar


def build_dataset(config: BrowseConfig, runs: list[Shown], corpus: Path, media: Path) -> Any:
    """Bring the dataset up to date and return it.

    Samples are known by their ``key``. Those that no view needs any more go, unless somebody tagged them; fields of
    runs are written anew, keeping label tags; anything else on a sample is left as it is.
    """
    import fiftyone as fo

    dataset = fo.load_dataset(config.dataset) if fo.dataset_exists(config.dataset) else fo.Dataset(config.dataset)
    dataset.persistent = True
    classes = read_json(corpus / "classes.json", "dvc repro ingest")
    sampled = images_to_show(runs, corpus / "truth.parquet", config.images_per_view)
    present = _remove_stale(dataset, sampled)
    files = extract(corpus / "unlabeled", sampled | present, media)
    # An image that the corpus no longer has, or has another one in the place of.
    shown = dict(zip(dataset.values("key"), dataset.values("filepath"), strict=True)) if present else {}
    replaced = {key for key in present if shown[key] != str(files.get(key))}
    _remove(dataset, replaced)
    present -= replaced
    new = [fo.Sample(filepath=str(files[key]), key=key) for key in sorted(files.keys() - present)]
    if new:
        dataset.add_samples(new, progress=False)
    if "key" not in dataset.list_indexes():
        dataset.create_index("key", unique=True)
    keys = set(files)
    with progress_bar("fiftyone fields", total=len(runs)) as advance:
        for run in runs:
            _write_opinions(dataset, run, keys, classes)
            if run.selection is not None:
                _write_decisions(dataset, run, keys)
            advance()
    _write_truth(dataset, corpus / "truth.parquet", keys, classes)
    _save_views(dataset, runs)
    dataset.info = {
        "classes": classes,
        "sample": f"at most {config.images_per_view} images of each view, of {_pool_size(corpus):,} unlabeled ones",
    }
    dataset.save()
    return dataset


def _remove_stale(dataset: Any, sampled: set[int]) -> set[int]:
    """Remove samples that no view needs and nobody tagged; return the keys of those that stay."""
    if "key" not in dataset.get_field_schema():
        return set()
    tagged = set(dataset.match_tags(dataset.distinct("tags")).values("key")) if dataset.distinct("tags") else set()
    label_tags = dataset.count_label_tags()
    if label_tags:
        tagged |= set(dataset.select_labels(tags=list(label_tags)).values("key"))
    stay = set(dataset.values("key")) & (sampled | tagged)
    _remove(dataset, set(dataset.values("key")) - stay)
    return stay


def _remove(dataset: Any, keys: set[int]) -> None:
    from fiftyone import ViewField

    if keys:
        dataset.delete_samples(dataset.match(ViewField("key").is_in(sorted(keys))))


def _write_opinions(dataset: Any, run: Shown, keys: set[int], classes: list[str]) -> None:
    import fiftyone as fo

    label_tags = {}
    if run.name in dataset.get_field_schema():
        label_tags = dict(zip(dataset.values("key"), dataset.values(f"{run.name}.tags"), strict=True))
    labels = {
        key: fo.Classification(
            label=classes[opinion.label],
            confidence=opinion.confidence,
            logits=opinion.log_probs,
            tags=label_tags.get(key) or [],
        )
        for key, opinion in opinions(run.predictions, keys).items()
    }
    dataset.set_values(run.name, labels, key_field="key")


def _write_decisions(dataset: Any, run: Shown, keys: set[int]) -> None:
    import polars as pl

    assert run.selection is not None
    rows = scan_selection(run.selection).filter(pl.col("key").is_in(sorted(keys))).collect(engine="streaming")
    dataset.set_values(decision_field(run.name), dict(zip(rows["key"], rows["decision"], strict=True)), key_field="key")
    dataset.set_values(copies_field(run.name), dict(zip(rows["key"], rows["copies"], strict=True)), key_field="key")


def _write_truth(dataset: Any, truth: Path, keys: set[int], classes: list[str]) -> None:
    import fiftyone as fo
    import polars as pl

    if "truth" not in dataset.get_field_schema():
        dataset.add_sample_field("truth", fo.EmbeddedDocumentField, embedded_doc_type=fo.Classification)
    rows = pl.read_parquet(truth).filter(pl.col("key").is_in(sorted(keys)))
    names = {NO_CLASS: NO_CLASS_NAME} | dict(enumerate(classes))
    labels = {key: fo.Classification(label=names[label]) for key, label in rows.iter_rows()}
    if labels:
        dataset.set_values("truth", labels, key_field="key")


def _save_views(dataset: Any, runs: list[Shown]) -> None:
    from fiftyone import ViewField

    for _, _, views in saved_views(runs):
        for view in views:
            filtered = dataset.match(view.samples(ViewField))
            dataset.save_view(view.name, filtered, description=view.description, overwrite=True)


def _pool_size(corpus: Path) -> int:
    return int(read_json(corpus / "summary.json", "dvc repro ingest")["unlabeled"]["images"])
