"""The stage ``ingest``: from folders and shards to the corpus. Append-only, and accounts for every image."""

import shutil
from collections import Counter
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from selftrain.corpus.append import SplitCounts, update_split
from selftrain.corpus.duplicates import in_two_classes, write_duplicates
from selftrain.corpus.in_place import update_in_place
from selftrain.corpus.layout import checked_classes, cut_splits, found_images
from selftrain.corpus.source_image import SourceImage, told
from selftrain.params.ingest import IngestConfig
from selftrain.plumbing.engines import Here, all_cores, engine_of
from selftrain.plumbing.errors import UserError, one_line
from selftrain.plumbing.files import write_json
from selftrain.plumbing.hardware import HardwareConfig, usable_cores
from selftrain.plumbing.process_engine import Processes
from selftrain.plumbing.progress import progress_bar
from selftrain.tables.corpus import CLASSES, QUARANTINE, REPEATS, classes_of
from selftrain.tables.keys import LABELED_SPLITS, SPLITS
from selftrain.tables.manifest import manifest_digest, scan_manifest
from selftrain.tables.multi_labels import write_multi_labels
from selftrain.tables.parquet import collect, write_frame
from selftrain.tables.truth import TRUTH, write_truth

SHOWN = 3
"""Files of one kind that are named; the tables have all."""


def ingest(
    config: IngestConfig, seed: int, corpus: Path, verify: bool = False, machine: HardwareConfig | None = None
) -> dict[str, Any]:
    """Bring the corpus up to date with its sources and return the summary that is written to ``summary.json``.

    With ``verify`` every shard that lies here is read and compared with its manifest, else those that changed since the
    last time. Of what stays in a store its version tells.

    Raises UserError for missing paths, classes that differ between splits, empty splits, and more broken
    images than ``max_quarantined``.
    """
    root, machine = Path(config.root), machine or HardwareConfig()
    # What is wrong with the sources is told before anything of the corpus goes.
    classes = checked_classes(root, config)
    ignored: dict[str, Counter[str]] = {split: Counter() for split in SPLITS}
    cut_images = cut_splits(root, config, classes, seed, ignored["labeled"])
    drop_splits_of_other_classes(corpus, classes)
    corpus.mkdir(parents=True, exist_ok=True)
    write_json(corpus / CLASSES, classes)

    hidden = {image.source: image.class_name for image in cut_images.get("unlabeled", []) if image.class_name}
    if "unlabeled" in cut_images:
        cut_images["unlabeled"] = [image._replace(class_name=None) for image in cut_images["unlabeled"]]
    counts = {
        split: _updated(corpus, split, config, classes, cut_images.get(split), verify, ignored[split], machine)
        for split in SPLITS
    }
    _write_quarantine(corpus / QUARANTINE, counts)
    for split in LABELED_SPLITS:
        _check_classes(corpus, split, classes)
    quarantined = {source for source, _ in counts["unlabeled"].quarantined}
    truth_csv = root / config.truth if config.truth else None
    with_truth = write_truth(truth_csv, hidden, corpus, classes, quarantined, corpus / TRUTH)
    multi_csv = root / config.multi_labels if config.multi_labels else None
    broken = {source for source, _ in counts["test"].quarantined}
    multi_labeled = write_multi_labels(multi_csv, corpus / "test", classes, broken)
    repeats = write_duplicates(corpus, corpus / REPEATS, config.near_duplicates, engine_of(machine, Here()))
    contradictions = in_two_classes(corpus)
    for split in SPLITS:
        _print_split(split, counts[split], ignored[split], corpus / QUARANTINE)
    summary = {split: _summary(corpus / split, counts[split], ignored[split], classes) for split in SPLITS}
    summary["unlabeled"] |= {
        "leaks": repeats["leak"],
        "near_leaks": repeats["near leak"],
        "duplicates": repeats["duplicate"],
        "near_duplicates": repeats["near duplicate"],
        "with_truth": with_truth,
    }
    if config.multi_labels:
        summary["test"]["multi_labeled"] = multi_labeled
    summary["labeled"] |= {"held_out_too": repeats["held out too"], "in_two_classes": len(contradictions)}
    _tell_of_repeats(repeats, contradictions, summary["unlabeled"]["images"])
    write_json(corpus / "summary.json", summary)
    return summary


def _updated(
    corpus: Path,
    split: str,
    config: IngestConfig,
    classes: list[str],
    images: Iterable[SourceImage] | None,
    verify: bool,
    ignored: Counter[str],
    machine: HardwareConfig,
) -> SplitCounts:
    """Bring one split up to date, with ``images`` where it is cut from another."""
    root, source = Path(config.root), getattr(config, split)
    check_found = partial(_check_found, corpus, split, config)
    with progress_bar(f"ingest {split}") as advance:
        if source.in_place:
            return update_in_place(
                corpus / split,
                split,
                root,
                source.images,
                max_pixels=config.max_pixels,
                verify=verify,
                ignored=ignored,
                engine=engine_of(machine, Processes(usable_cores())),
                on_images=advance,
                before_removal=check_found,
            )
        return update_split(
            corpus / split,
            split,
            images or found_images(root, source, split, classes, ignored),
            classes,
            images_per_shard=config.images_per_shard,
            max_pixels=config.max_pixels,
            engine=engine_of(machine, all_cores()),
            verify=verify,
            on_image=advance,
            before_removal=check_found,
        )


def _tell_of_repeats(repeats: Mapping[str, int], contradictions: list[list[str]], pool_images: int) -> None:
    print(
        f"in the pool: {repeats['leak']} exact and {repeats['near leak']} altered copies of held-out images, "
        f"{repeats['duplicate']} exact and {repeats['near duplicate']} altered copies of other images; "
        "`select` leaves them out"
    )
    if contradictions:
        print(
            f"warning: {len(contradictions)} labeled pictures lie in two classes, pixel for pixel; one of the labels "
            "is wrong, so remove it:"
        )
        for sources in contradictions[:SHOWN]:
            print(f"    {one_line(', '.join(sources))}")
    if repeats["near leak"] > 0.05 * pool_images:
        print(
            f"warning: {repeats['near leak'] / pool_images:.0%} of the pool pass for altered copies "
            "of held-out images; look at them, and if they are likenesses, set `ingest.near_duplicates: false`"
        )
    if repeats["held out too"]:
        print(
            f"warning: {repeats['held out too']} labeled images are also validation or test images, pixel for pixel; "
            "accuracy is measured on what was learned"
        )


def drop_splits_of_other_classes(corpus: Path, classes: list[str]) -> None:
    """When the class list changes, every stored label index means something else: label those splits anew."""
    if not (corpus / CLASSES).exists():
        return
    try:
        same = classes_of(corpus) == classes
    except UserError:  # damaged: nobody knows what the indices meant
        same = False
    for split in LABELED_SPLITS if not same else ():
        shutil.rmtree(corpus / split, ignore_errors=True)


def _write_quarantine(out: Path, counts: dict[str, SplitCounts]) -> None:
    import polars as pl

    rows = [(split, *entry) for split, count in counts.items() for entry in count.quarantined]
    schema = dict.fromkeys(("split", "source", "reason"), pl.String)
    write_frame(pl.DataFrame(rows, schema=schema, orient="row"), out)


def _check_found(corpus: Path, split: str, config: IngestConfig, count: SplitCounts) -> None:
    broken = count.quarantined
    if count.found and len(broken) / count.found > config.max_quarantined:
        _write_quarantine(corpus / QUARANTINE, {split: count})
        raise UserError(
            f"{len(broken)} of the {count.found} images of split '{split}' are broken, more than "
            f"`ingest.max_quarantined` ({config.max_quarantined:g}) allows; the first is {broken[0][0]}: "
            f"{broken[0][1]}; all are in {corpus / QUARANTINE}"
        )
    if count.kept + count.added == 0:
        paths = ", ".join(getattr(config, split).images) or "the labeled images"
        raise UserError(f"split '{split}' has no usable images in {paths}; correct `ingest.{split}` in params.yaml")


def _check_classes(corpus: Path, split: str, classes: list[str]) -> None:
    for name, images in _images_per_class(corpus / split, classes).items():
        if images == 0:
            raise UserError(f"class '{name}' has no usable images in split '{split}'; every split needs every class")


def _images_per_class(split_folder: Path, classes: list[str]) -> dict[str, int]:
    import polars as pl

    counts = collect(scan_manifest(split_folder).group_by("label").agg(pl.len().alias("images")), split_folder)
    by_label = dict(counts.iter_rows())
    return {name: by_label.get(index, 0) for index, name in enumerate(classes)}


def _print_split(split: str, count: SplitCounts, ignored: Counter[str], quarantine: Path) -> None:
    others = told(ignored)
    print(
        f"{split}: {count.kept + count.added:,} images ({count.added:,} new, {count.removed:,} removed, "
        f"{len(count.quarantined):,} quarantined, {count.listed_twice:,} listed twice)"
        + (f"; no images: {others}" if others else "")
    )
    for source, reason in count.quarantined[:SHOWN]:
        print(f"    {one_line(f'{source}: {reason}')}")
    if len(count.quarantined) > SHOWN:
        print(f"    {len(count.quarantined) - SHOWN:,} more in {quarantine}")


def _summary(split_folder: Path, count: SplitCounts, ignored: Counter[str], classes: list[str]) -> dict[str, Any]:
    summary: dict[str, Any] = {
        "found": count.found,
        "images": count.kept + count.added,
        "quarantined": len(count.quarantined),
        "listed_twice": count.listed_twice,
        "no_images": dict(sorted(ignored.items())),
        "digest": manifest_digest(split_folder),
    }
    if split_folder.name != "unlabeled":
        summary["per_class"] = _images_per_class(split_folder, classes)
    return summary
