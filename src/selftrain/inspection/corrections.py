"""Corrections between the App and ``corrections.parquet``: tags ``reject`` and ``no_copy``, a label in ``corrected``.

Both sides may change between two meetings, and other people's corrections arrive with the file. So the dataset
remembers what both had last, and the two are merged against that: what one side left alone, the other decides.
"""

import datetime
import getpass
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from selftrain.inspection.media import piece_of_name
from selftrain.plumbing.errors import UserError
from selftrain.plumbing.git import git
from selftrain.tables.corrections import (
    CORRECT,
    NO_COPY,
    REJECT,
    check_corrections,
    no_corrections,
    read_corrections,
    stale_rows,
    write_corrections,
)
from selftrain.tables.keys import split_of
from selftrain.tables.manifest import find_rows

TAGS, FIELD, REMEMBERED = (REJECT, NO_COPY), "corrected", "remembered"


class Correction(NamedTuple):
    """What a person said of an image."""

    action: str
    label: str | None = None
    """The class, if the action is ``correct``."""


Corrections = dict[int, Correction]
"""By key."""


@dataclass(frozen=True)
class Merged:
    """What holds after a merge, and where both sides had changed differently: key → (App's, file's)."""

    corrections: Corrections
    conflicts: dict[int, tuple[Correction | None, Correction | None]]


def merge(base: Corrections, app: Corrections, file: Corrections, shown: set[int], prefer: str) -> Merged:
    """Three-way merge; ``shown`` are the images that the App has, ``prefer`` (``app``, ``file``) decides conflicts."""
    corrections, conflicts = {}, {}
    for key in {*base, *app, *file}:
        before, here, there = base.get(key), app.get(key), file.get(key)
        if key not in shown or here == before:
            result = there
        elif there in (before, here):
            result = here
        else:
            conflicts[key] = (here, there)
            result = here if prefer == "app" else there
        if result is not None:
            corrections[key] = result
    return Merged(corrections, conflicts)


def said_in_app(dataset: Any) -> tuple[Corrections, list[str]]:
    """The corrections in the App, and a line for each image whose correction is contradictory or impossible."""
    from fiftyone import ViewField

    classes = dataset.info["classes"]
    said: dict[int, list[Correction]] = {}
    for tag in TAGS:
        for key in dataset.match_tags(tag).values("key"):
            said.setdefault(key, []).append(Correction(tag))
    labeled = dataset.match(ViewField(f"{FIELD}.label").exists())
    for key, label in zip(labeled.values("key"), labeled.values(f"{FIELD}.label"), strict=True):
        said.setdefault(key, []).append(Correction(CORRECT, label))
    corrections, problems = {}, []
    sources = dict(zip(dataset.values("key"), dataset.values("source"), strict=True)) if said else {}
    for key, (first, *others) in sorted(said.items()):
        image = f"image {key} ({sources.get(key)}) in the App"
        if split_of(key) != "unlabeled":
            problems.append(f"{image}: is a {split_of(key)} image; only unlabeled ones are corrected")
        elif others:
            both = " and ".join(_in_app(correction) for correction in (first, *others))
            problems.append(f"{image}: {both}; take all but one of them back")
        elif first.action == CORRECT and first.label not in classes:
            problem = f"there is no class '{first.label}'; there are: {', '.join(classes)}"
            problems.append(f"{image}: {problem}")
        else:
            corrections[key] = first
    return corrections, problems


def _sensible(dataset: Any) -> Corrections:
    corrections, problems = said_in_app(dataset)
    if problems:
        others = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise UserError(problems[0] + others)
    return corrections


def export_corrections(dataset: Any, path: Path, corpus: Path, who: str | None) -> str:
    """Bring the file up to what people said in the App; return a line that tells what changed.

    Corrections that are as they were keep their ``who`` and ``when``, so an export without news writes the same bytes.
    Raises UserError for labels that are no class.
    """
    import polars as pl

    old = read_corrections(path) if path.exists() else no_corrections()
    file = _said_in(old)
    classes = list(dataset.info["classes"])
    app = _sensible(dataset)
    # Without a file nobody took anything back.
    base = _remembered(dataset) if path.exists() else {}
    merged = merge(base, app, file, set(dataset.values("key")), prefer="app")
    changed = {key for key in {*merged.corrections, *file} if merged.corrections.get(key) != file.get(key)}
    hashes = dict(
        find_rows(corpus / "unlabeled", changed & set(merged.corrections)).select("key", "sha256").iter_rows()
    )
    _check_images(dataset, changed & set(app) & set(merged.corrections), hashes)
    author, now = who or _author(), datetime.datetime.now(datetime.UTC).replace(microsecond=0)
    rows = [row for row in old.iter_rows(named=True) if row["key"] not in changed]
    for key in changed & set(merged.corrections):
        action, label = merged.corrections[key]
        sha256 = hashes.get(key)
        rows.append({"key": key, "action": action, "label": label, "who": author, "when": now, "sha256": sha256})
    table = pl.DataFrame(rows, schema=no_corrections().schema, orient="row")
    check_corrections(table, path, classes, corpus / "unlabeled")
    if changed or not path.exists():
        write_corrections(path, table)
    _remember(dataset, merged.corrections)
    _show(dataset, merged.corrections, app)
    added, gone = len(set(merged.corrections) - set(file)), len(set(file) - set(merged.corrections))
    outcome = f"{path}: {len(table)} corrections, {added} new, {len(changed) - added - gone} changed, {gone} taken back"
    if lost := len(set(app) - set(merged.corrections)):
        outcome += f"; {lost} that the file no longer has left the App"
    return outcome + _conflicts(merged, "the App's was taken")


def import_corrections(dataset: Any, path: Path, corpus: Path, prefer: str, strict: bool = True) -> str:
    """Show the file's corrections in the App; return a line that says what changed there.

    Impossible corrections in the App are printed and left as they are, unless the file corrects the same image. Raises
    UserError for rows of the file that do not fit the corpus; if not ``strict``, they are printed and skipped.
    """
    import polars as pl

    table, classes = read_corrections(path), list(dataset.info["classes"])
    if strict:
        check_corrections(table, path, classes, corpus / "unlabeled")
    stale = stale_rows(table, classes, corpus / "unlabeled")
    file = _said_in(table.filter(~pl.col("key").is_in(list(stale))))
    app, problems = said_in_app(dataset)
    problems += [f"{path}: key {key} is passed over: {reason}" for key, reason in stale.items()]
    shown = set(dataset.values("key"))
    before = _remembered(dataset)
    merged = merge(before, app, file, shown, prefer)
    _show(dataset, merged.corrections, app)
    remembered = file
    if prefer == "app":  # an open conflict stays one
        agreed = {key: said for key, said in file.items() if key not in merged.conflicts}
        remembered = agreed | {key: said for key, said in before.items() if key in merged.conflicts}
    _remember(dataset, remembered)
    news = sum(merged.corrections.get(key) != app.get(key) for key in set(merged.corrections) & shown)
    gone = len((set(app) - set(merged.corrections)) & shown)
    summary = f"{path}: {len(file)} corrections, {news} of them news to the App, {gone} no longer in it"
    outcome = "the file's was taken" if prefer == "file" else "the App's stays until you import or export"
    return "\n".join([summary + _conflicts(merged, outcome), *problems])


def _check_images(dataset: Any, keys: set[int], hashes: dict[int, bytes]) -> None:
    """Raises UserError if the App shows another image than the corpus has under a key that was corrected."""
    files = dict(zip(dataset.values("key"), dataset.values("filepath"), strict=True)) if keys else {}
    for key in sorted(keys):
        if key not in hashes or not Path(files[key]).name.startswith(piece_of_name(key, hashes[key])):
            raise UserError(
                f"image {key} in the App is none that the corpus has now, and its correction would be said of another; "
                "`selftrain browse --build-only` takes it out of the App"
            )


def forget(dataset: Any, keys: set[int]) -> None:
    """Images that left the dataset: what both sides had of them is no base for a merge any more."""
    _remember(dataset, {key: said for key, said in _remembered(dataset).items() if key not in keys})


def _said_in(table: Any) -> Corrections:
    return {row["key"]: Correction(row["action"], row["label"]) for row in table.iter_rows(named=True)}


def _remembered(dataset: Any) -> Corrections:
    return {int(key): Correction(*said) for key, said in dataset.info.get(REMEMBERED, {}).items()}


def _remember(dataset: Any, corrections: Corrections) -> None:
    dataset.info = {**dataset.info, REMEMBERED: {str(key): list(said) for key, said in corrections.items()}}
    dataset.save()


def _show(dataset: Any, corrections: Corrections, app: Corrections) -> None:
    """Make the App's tags and labels what is said."""
    import fiftyone as fo
    from fiftyone import ViewField

    shown = set(dataset.values("key"))
    for key in {*corrections, *app} & shown:
        said = corrections.get(key)
        if said == app.get(key):
            continue
        view = dataset.match(ViewField("key") == key)
        view.untag_samples(TAGS)
        if said is not None and said.action in TAGS:
            view.tag_samples(said.action)
        label = said.label if said is not None else None
        view.set_values(FIELD, [fo.Classification(label=label) if label is not None else None])


def _conflicts(merged: Merged, outcome: str) -> str:
    lines = [
        f"; image {key} is {_word(here)} in the App and {_word(there)} in the file: {outcome}"
        for key, (here, there) in sorted(merged.conflicts.items())
    ]
    return "".join(lines)


def _word(said: Correction | None) -> str:
    words = {REJECT: "rejected", NO_COPY: "no copy"}
    return "not corrected" if said is None else words.get(said.action, f"'{said.label}'")


def _in_app(said: Correction) -> str:
    return f"'{FIELD}' to '{said.label}'" if said.action == CORRECT else f"tagged '{said.action}'"


def _author() -> str:
    try:
        return git("config", "user.name") or getpass.getuser()
    except (KeyError, OSError):  # a container's user may have no name
        return f"user {os.getuid()}"
