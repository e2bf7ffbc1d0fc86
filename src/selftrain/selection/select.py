"""The stage ``select``: every unlabeled image decided on, from its teacher's prediction table.

The table is never held in memory: one pass over its parts finds the candidates, DuckDB finds each class's cut-off
(spilling to disk if it must), and a second pass writes the decisions.
"""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from selftrain.params.select import SelectConfig
from selftrain.plumbing.engines import Here, engine_of
from selftrain.plumbing.errors import UserError
from selftrain.plumbing.files import write_json
from selftrain.plumbing.hardware import HardwareConfig
from selftrain.plumbing.progress import progress_bar
from selftrain.plumbing.spill import querying, spill_folder
from selftrain.selection.decide import Decisions, no_decisions
from selftrain.selection.parts import TOGETHER, Counts, FirstPass, SecondPass, added, prepared
from selftrain.selection.sources import Tables
from selftrain.tables import selection
from selftrain.tables.corpus import REPEATS
from selftrain.tables.corrections import (
    check_corrections,
    decided_by_hand,
    file_digest,
    no_copies,
    no_corrections,
    read_corrections,
)
from selftrain.tables.manifest import in_groups
from selftrain.tables.parquet import read_frame
from selftrain.tables.predictions import made_from_digest, prediction_parts

if TYPE_CHECKING:
    import polars as pl

MEMORY_LIMIT = "1GB"
# Parquet's statistics leave NaN out, and DuckDB 2.0 believes them.
SETTINGS: dict[str, Any] = {"memory_limit": MEMORY_LIMIT, "disabled_optimizers": "statistics_propagation"}


class NothingSelected(UserError):
    """A selection without an image: nobody can be trained on it."""


def select(
    config: SelectConfig,
    seed: int,
    predictions: Path,
    corpus: Path,
    out: Path,
    corrections: Path | None = None,
    earlier: tuple[Path, ...] = (),
    machine: HardwareConfig | None = None,
) -> dict[str, Any]:
    """Decide on every image of ``predictions`` (the unlabeled split's table) and write the selection to ``out``.

    ``corrections`` is what people said of single images, ``earlier`` are the tables of the teacher's own teachers, the
    first one last. Returns the summary that is written to ``summary.json``.

    Raises UserError for a table that is damaged or not the corpus', if no label of the teacher's passes the policy, and
    for corrections that do not fit the corpus.
    """
    import duckdb

    if not (corpus / REPEATS).is_file():
        raise UserError(f"{corpus / REPEATS}: no such file; `dvc repro ingest` makes it")
    parts = prediction_parts(predictions)
    source = Tables(predictions, corpus, earlier)
    classes = source.classes
    decisions = Decisions(config, seed, _decided_before(corpus, classes, config, corrections), source)
    engine = engine_of(machine or HardwareConfig(), Here())
    units = list(in_groups(parts, TOGETHER))
    with (
        spill_folder() as spill,
        querying(spill),
        duckdb.connect(config=SETTINGS | {"temp_directory": spill}) as connection,
    ):
        first_pass = FirstPass(source, decisions, Path(spill))
        for _ in engine.done(lambda: first_pass, units, _name, f"candidates {out.name}"):
            pass
        connection.read_parquet([str(Path(spill) / part.name) for part in parts]).create_view("candidates")
        planned = decisions.plan(connection)
    if planned is None:
        raise NothingSelected(_nothing_passed(decisions, parts, source, corrections))
    quota, plans, plan = planned

    shutil.rmtree(out, ignore_errors=True)
    totals: Counts = {}
    second_pass = SecondPass(source, decisions, plan, out)
    with progress_bar(f"select {out.name}", total=len(parts)) as advance:
        for unit, counts in engine.done(lambda: second_pass, units, _name, f"select {out.name}"):
            totals = added(totals, counts)
            advance(len(unit))
    found = decisions.policy.summary(classes) | ({"gate": decisions.gate.cutoff} if decisions.gate is not None else {})
    summary = _summary(totals, classes, decisions, quota) | {
        "policy": {"name": config.policy, **found},
        "shift": None if decisions.aligned is None else decisions.aligned.shift.tolist(),
        "predictions": made_from_digest(predictions),
        "corrections": {"path": str(corrections), "digest": file_digest(corrections)} if corrections else None,
        "digest": selection.parts_digest(out),
    }
    assert {p.label: p.kept for p in plans} == {
        p.label: totals.get((p.label, selection.KEPT), (0, 0))[0] for p in plans
    }
    write_json(out / "summary.json", summary)
    return summary


def _name(unit: list[Path]) -> str:
    return f"{unit[0]} to {unit[-1].name}"


def _decided_before(corpus: Path, classes: list[str], config: SelectConfig, corrections: Path | None) -> "pl.DataFrame":
    """``key, kind, to_label`` of the images that are decided on whatever the teacher says.

    Held-out images' copies are leaks whatever label a person gives them; a person's word comes before "duplicate".
    Where a person says that an altered copy is none, it is none. Equal bytes or pixels stay copies.
    """
    import polars as pl

    corrected = no_corrections()
    if corrections is not None:
        corrected = read_corrections(corrections)
        check_corrections(corrected, corrections, classes, corpus / "unlabeled")
    kinds = no_decisions()
    if config.repeats == "drop":
        repeats = read_frame(corpus / REPEATS, ["key", "kind", "match"])
        called_none, near = pl.col("key").is_in(no_copies(corrected)), pl.col("match") == "near"
        if exact := len(repeats.filter(called_none & ~near)):
            print(f"{corrections}: {exact} images that are called no copies equal another image, and stay out")
        kinds = repeats.filter(~(called_none & near)).select("key", "kind", to_label=pl.lit(None, pl.Int32))
    by_hand = decided_by_hand(corrected, classes)
    leaks = kinds.filter(pl.col("kind") == selection.LEAK)
    if in_vain := len(by_hand.join(leaks, on="key", how="semi")):
        print(f"{corrections}: {in_vain} corrected images are copies of held-out images, and stay out as leaks")
    by_hand = by_hand.join(leaks, on="key", how="anti")
    return pl.concat([kinds.join(by_hand, on="key", how="anti"), by_hand])


def _summary(
    totals: Counts,
    classes: list[str],
    decisions: Decisions,
    quota: int | None,
) -> dict[str, Any]:
    def count(label: int, decision: str) -> tuple[int, int]:
        """(images, copies)"""
        return totals.get((label, decision), (0, 0))

    labels = range(len(classes))
    images = sum(counts[0] for counts in totals.values())
    counts = {kind: sum(count(label, kind)[0] for label in labels) for kind in decisions.kinds}
    assert images == sum(counts.values())
    copies = [sum(count(label, kind)[1] for kind in selection.TRAINED_ON) for label in labels]
    unique = sum(counts[kind] for kind in selection.TRAINED_ON)
    return {
        "images": images,
        "coverage": unique / images,
        "decisions": counts,
        "per_class_quota": quota,
        "threshold": decisions.policy.threshold,
        "unique_images": unique,
        "balanced_images": sum(copies),
        "per_class": {
            name: {kind: count(label, kind)[0] for kind in decisions.kinds} | {"copies": copies[label]}
            for label, name in enumerate(classes)
        },
    }


def _nothing_passed(decisions: Decisions, parts: list[Path], source: Tables, corrections: Path | None) -> str:
    """Why there is no candidate at all."""
    predictions, of_parts = source.predictions, _highest(decisions, parts, source)
    highest, highest_usable = (max(found, default=None) for found in zip(*of_parts, strict=True))
    if highest is None or highest < 0:
        return f"{predictions}: every confidence is NaN; the teacher did not learn, so train it anew"
    if highest_usable is None or highest_usable < 0:
        reasons = " and ".join(str(path) for path in (source.corpus / REPEATS, corrections) if path is not None)
        return (
            f"{predictions}: leaks, duplicates, rejected images and `select.share` leave no image at all; look at "
            f"{reasons}, or use a larger share"
        )
    threshold = decisions.policy.threshold
    if decisions.config.policy != "threshold" or decisions.gate is not None:
        return (
            f"the round's selection (policy {decisions.config.policy}, cut-off {threshold:g}"
            + (f", gate {decisions.gate.cutoff:.3f}" if decisions.gate is not None else "")
            + f") leaves no image of {predictions}; the highest confidence of those that may be used is "
            f"{highest_usable:.3f}, so ask for less or choose a better teacher"
        )
    return (
        f"the round's select.threshold, {threshold:g}, filters out every image of {predictions}; the highest "
        f"confidence of those that may be used is {highest_usable:.3f}, so choose a lower threshold or a better teacher"
    )


def _highest(decisions: Decisions, parts: list[Path], source: Tables) -> Iterator[tuple[float, float]]:
    """Each part's highest confidence, of all its images and of those that may be used; -1 where there is none."""
    import polars as pl

    for part in parts:
        rows = prepared(part, source, decisions).filter(pl.col("confidence").is_not_nan())
        usable = decisions.usable(rows)
        yield tuple(float(-1 if len(frame) == 0 else frame["confidence"].max()) for frame in (rows, usable))  # type: ignore[arg-type, misc]
