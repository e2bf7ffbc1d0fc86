"""The samples' fields: what each run says, what each round decided, what is known besides."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from selftrain.inspection.corrections import FIELD
from selftrain.inspection.rounds import BrowsedRun, history
from selftrain.inspection.tables import image_predictions
from selftrain.tables.corpus import REPEATS
from selftrain.tables.manifest import find_rows
from selftrain.tables.parquet import read_frame, row_count
from selftrain.tables.truth import NO_CLASS, TRUTH, name_of_no_class

if TYPE_CHECKING:
    import polars as pl

LOGITS_UP_TO = 50
"""Classes up to which labels carry their logits, which FiftyOne's hardness needs."""
MOST_INDEXES = 60
"""MongoDB takes 64 in all."""
RUNS = "runs"
"""Where the dataset remembers whose fields it has."""
ROUND_FIELDS = ("pseudo", "decision", "copies", "review")


def forget_runs(dataset: Any, runs: list[BrowsedRun]) -> None:
    """Remove the fields, indexes and evaluations of runs that an earlier build showed and that are no more."""
    names = [run.name for run in runs]
    for old in set(dataset.info.get(RUNS, [])) - set(names):
        for eval_key in (f"{old}_on_pool", f"{old}_on_validation"):
            if dataset.has_evaluation(eval_key):
                dataset.delete_evaluation(eval_key)
        fields = {old, *(f"{old}_{what}" for what in ROUND_FIELDS)} & set(dataset.get_field_schema())
        for index in dataset.list_indexes():
            if index.partition(".")[0] in fields:
                dataset.drop_index(index)
        if fields:
            dataset.delete_sample_fields(sorted(fields))
    dataset.info = {**dataset.info, RUNS: names}


def declare(dataset: Any, runs: list[BrowsedRun]) -> None:
    """Make the fields that the views ask for, and index what they filter by: 100,000 images are to stay quick."""
    import fiftyone as fo

    label = {"ftype": fo.EmbeddedDocumentField, "embedded_doc_type": fo.Classification}
    wanted: dict[str, dict[str, Any]] = {"history": {"ftype": fo.StringField}, "truth": label, FIELD: label}
    wanted |= {run.name: label for run in runs}
    types = (fo.StringField, fo.StringField, fo.IntField, fo.IntField)
    for run in runs:
        if run.selection is not None:
            wanted |= {f"{run.name}_{name}": {"ftype": kind} for name, kind in zip(ROUND_FIELDS, types, strict=True)}
    wanted |= {name: {"ftype": fo.IntField} for name in ("out_of_domain", "asked", "pair")} | {
        "repeats": {"ftype": fo.StringField}
    }
    there, indexed = dataset.get_field_schema(), dataset.list_indexes()
    for name, kind in wanted.items():
        if name not in there:
            dataset.add_sample_field(name, **kind)
    plain = [name for name, kind in wanted.items() if kind is not label and name != "history"]
    missing = [name for name in ["split", *plain, *(f"{run.name}.label" for run in runs)] if name not in indexed]
    for name in missing[: max(0, MOST_INDEXES - len(indexed))]:
        dataset.create_index(name)


def write_predictions(dataset: Any, run: BrowsedRun, shown: dict[str, set[int]], classes: list[str]) -> None:
    """A run's label, confidence and logits on every image that it was asked about; label tags stay."""
    import fiftyone as fo

    tags = dict(zip(dataset.values("key"), dataset.values(f"{run.name}.tags"), strict=True))
    labels = {}
    for split, keys in shown.items():
        table = run.predictions.parent / split
        if not keys or not table.is_dir():
            continue
        for key, prediction in image_predictions(table, keys).items():
            labels[key] = fo.Classification(
                label=classes[prediction.label],
                confidence=prediction.confidence,
                logits=prediction.log_probs if len(classes) <= LOGITS_UP_TO else None,
                tags=tags.get(key) or [],
            )
    if labels:
        dataset.set_values(run.name, labels, key_field="key")


def write_decisions(dataset: Any, runs: list[BrowsedRun], rows: "pl.DataFrame", classes: list[str]) -> None:
    """What each round made of the unlabeled images, and each image's history in one line."""
    import polars as pl

    names = dict(enumerate(classes))
    for run in runs:
        for what in ROUND_FIELDS if run.selection is not None else ():
            name = f"{run.name}_{what}"
            values = rows[name].replace_strict(names, return_dtype=pl.String) if what == "pseudo" else rows[name]
            dataset.set_values(name, dict(zip(rows["key"], values, strict=True)), key_field="key")
    for name in ("out_of_domain", "asked"):
        dataset.set_values(name, dict(zip(rows["key"], rows[name], strict=True)), key_field="key")
    histories = {row["key"]: history(row, runs, classes) for row in rows.iter_rows(named=True)}
    dataset.set_values("history", histories, key_field="key")


def write_truth(dataset: Any, corpus: Path, shown: dict[str, set[int]], classes: list[str]) -> None:
    """Hidden truth where somebody knows it, and the labels of the labeled splits."""
    import fiftyone as fo
    import polars as pl

    names = {NO_CLASS: name_of_no_class(classes)} | dict(enumerate(classes))
    known = read_frame(corpus / TRUTH)
    labels = dict(known.filter(pl.col("key").is_in(sorted(shown["unlabeled"]))).iter_rows())
    for split in shown.keys() - {"unlabeled"}:
        labels |= dict(find_rows(corpus / split, shown[split]).select("key", "label").iter_rows())
    truth = {key: fo.Classification(label=names[label]) for key, label in labels.items()}
    if truth or dataset.has_field("truth"):
        none = dict.fromkeys(set().union(*shown.values()))
        dataset.set_values("truth", none | truth, key_field="key")


def truth_is_known(corpus: Path) -> bool:
    """Whether anybody knows the hidden truth of any image."""
    return bool(row_count(corpus / TRUTH))


def repeated(corpus: Path, keys: set[int]) -> set[int]:
    """The images that some images repeat."""
    import polars as pl

    pairs = read_frame(corpus / REPEATS, ["key", "of_key"])
    return set(pairs.filter(pl.col("key").is_in(sorted(keys)))["of_key"].to_list())


def write_pairs(dataset: Any, corpus: Path, keys: set[int]) -> None:
    """``pair``: the same number for an image and those that repeat it; ``repeats``: what it is a copy of, in words."""
    import polars as pl

    rows = read_frame(corpus / REPEATS).filter(pl.col("key").is_in(sorted(keys)))
    pairs = dict(rows.select("key", "of_key").iter_rows())
    pairs |= {of_key: of_key for of_key in rows["of_key"] if of_key in keys}
    partners = {
        row["key"]: f"{row['kind']} of {row['of_key']}, {row['match']}"
        + (f" (correlation {row['correlation']:.3f})" if row["match"] == "near" else "")
        for row in rows.iter_rows(named=True)
    }
    dataset.set_values("pair", {key: pairs.get(key) for key in keys}, key_field="key")
    dataset.set_values("repeats", {key: partners.get(key) for key in keys}, key_field="key")


def arrange_sidebar(dataset: Any, runs: list[BrowsedRun]) -> None:
    """A group for what is known of an image, then one a run; the grid shows the last round's labels."""
    import fiftyone as fo
    from fiftyone.core.odm.dataset import ActiveFields, SidebarGroupDocument

    schema = dataset.get_field_schema()
    known = ["history", "split", "truth", FIELD, "asked", "out_of_domain", "pair", "repeats", "source", "key"]
    groups = {"tags": ["tags"], "image": known}
    for run in runs:
        names = [
            run.name,
            *(f"{run.name}_{what}" for what in ROUND_FIELDS),
            *(f"{run.name}_on_{s}" for s in ("pool", "validation")),
        ]
        groups[run.name] = [name for name in names if name in schema]
    taken = {path for paths in groups.values() for path in paths} | {"id", "filepath"}
    groups["more"] = [name for name in schema if name not in taken and name != "metadata"]
    groups["metadata"] = ["id", "filepath", "metadata"]
    dataset.app_config.sidebar_groups = [
        SidebarGroupDocument(name=name, paths=paths, expanded=name not in ("more", "metadata"))
        for name, paths in groups.items()
        if paths
    ]
    last = runs[-1]
    active = [last.teacher or last.name, f"{last.name}_decision", "truth", FIELD]
    dataset.app_config.active_fields = ActiveFields(paths=[name for name in active if name in schema])
    dataset.app_config.color_scheme = fo.ColorScheme(color_by="value")
