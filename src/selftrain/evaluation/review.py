"""The stage ``review``: which pseudo-labels a person should look at first.

Every run of a round's chain, the teachers before it, itself and the students after it, has a prediction of every image.
Their mean is held against the label that the round trains on by confident learning (Northcutt et al. 2021, arXiv
1911.00068): the label's probability less what is usual for images of its class, so that classes which are always
doubtful do not fill the list. Confidence alone asks only the run that gave the label.
"""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from selftrain.evaluation.out_of_domain import suspects
from selftrain.evaluation.probabilities import probabilities
from selftrain.params.review import ReviewConfig
from selftrain.params.runs import chain_of
from selftrain.plumbing.errors import UserError
from selftrain.plumbing.files import write_json
from selftrain.tables.by_key import rows_among
from selftrain.tables.parquet import read_frame, write_frame
from selftrain.tables.predictions import made_from_digest, prediction_classes, read_part
from selftrain.tables.records import EvaluatedRecord
from selftrain.tables.selection import KEPT, selection_digest, selection_parts
from selftrain.tables.truth import NO_CLASS, TRUTH

if TYPE_CHECKING:
    import polars as pl

FIRST = (0.01, 0.05)
"""Shares of the list whose errors are counted where truth is known."""


@dataclass(frozen=True)
class Rounds:
    """The rounds of a pipeline, each with its teacher, and where its tables lie."""

    teachers: dict[str, str]
    """Round → the run that gave its pseudo-labels, in the order of the rounds."""
    predictions: Path
    selections: Path

    @property
    def runs(self) -> list[str]:
        """Every run that is a round or a round's teacher."""
        return list(dict.fromkeys([*self.teachers.values(), *self.teachers]))

    def chain(self, round_: str) -> list[str]:
        """The runs that a round comes from or leads to, itself among them: not those of other branches."""
        chain = chain_of(round_, self.teachers)[::-1]
        descendants = {round_}
        for _ in self.teachers:
            descendants |= {name for name, teacher in self.teachers.items() if teacher in descendants}
        return [*chain, *(name for name in self.teachers if name in descendants and name not in chain)]


def review(rounds: Rounds, evaluation: Path, corpus: Path, config: ReviewConfig, out: Path) -> dict[str, Any]:
    """Write ``out/<round>.parquet``, most doubtful first, for every round, and ``out/summary.json``; return the latter.

    Columns: ``rank, key, label, confidence, suggested`` (the likeliest other class), ``quality`` (0–1,
    cleanlab's; low is doubtful), ``agreeing`` (how many runs give the label), ``runs`` (of how many).
    ``out/out_of_domain.parquet`` lists what shows perhaps none of the classes.

    Raises UserError if a table is not the one that ``evaluation`` saw.
    """
    _check_tables(rounds, evaluation)
    truth = read_frame(corpus / TRUTH).rename({"label": "truth"}).sort("key")
    shutil.rmtree(out, ignore_errors=True)
    summary: dict[str, Any] = {}
    for round_, listed in rank(rounds, truth, config.images).items():
        write_frame(listed.ranked, out / f"{round_}.parquet")
        summary[round_] = {"kept": listed.kept, "listed": len(listed.ranked)} | found_errors(listed.known)
    first = [run for run in rounds.runs if run not in rounds.teachers]
    strangers, of_suspects = suspects([rounds.predictions / run for run in first], corpus, truth, config.images)
    write_frame(strangers, out / "out_of_domain.parquet")
    write_json(out / "summary.json", summary | {"out_of_domain": of_suspects})
    return summary | {"out_of_domain": of_suspects}


@dataclass
class Listed:
    """A round's list as it grows, part by part."""

    ranked: "pl.DataFrame"
    known: "pl.DataFrame"
    """Of every kept image whose truth is known: ``key, label, confidence, quality, truth``."""
    kept: int = 0


def rank(rounds: Rounds, truth: "pl.DataFrame", images: int) -> dict[str, Listed]:
    """Each round's most doubtful labels. All tables are read twice, part by part, whatever the number of rounds."""
    import polars as pl
    from cleanlab.experimental.label_issues_batched import LabelInspector

    columns = {
        "key": pl.Int64, "label": pl.Int32, "confidence": pl.Float32, "suggested": pl.Int32,
        "quality": pl.Float64, "agreeing": pl.Int32, "runs": pl.Int32,
    }  # fmt: skip
    known = {name: columns[name] for name in ("key", "label", "confidence", "quality")} | {"truth": pl.Int32}
    listed = {round_: Listed(pl.DataFrame(schema=columns), pl.DataFrame(schema=known)) for round_ in rounds.teachers}
    inspectors = {}
    for round_, teacher in rounds.teachers.items():
        inspectors[round_] = LabelInspector(
            num_class=len(prediction_classes(rounds.predictions / teacher / "unlabeled")),
            store_results=False,
            verbose=False,
            quality_score_kwargs={"method": "self_confidence", "adjust_pred_probs": True},
        )
    for round_, rows, mean, _ in _kept(rounds):
        inspectors[round_].update_confident_thresholds(rows["label"].to_numpy(), mean)
    for round_, rows, mean, agreeing in _kept(rounds):
        inspector, own = inspectors[round_], listed[round_]
        quality = inspector.score_label_quality(rows["label"].to_numpy(), mean, update_num_issues=False)
        scored = rows.with_columns(
            suggested=pl.Series(_best_other(mean, rows["label"].to_numpy()), dtype=pl.Int32),
            quality=pl.Series(quality, dtype=pl.Float64),
            agreeing=pl.Series(agreeing, dtype=pl.Int32),
            runs=pl.lit(len(rounds.chain(round_)), pl.Int32),
        )
        own.kept += len(rows)
        own.ranked = pl.concat([own.ranked, scored.select(own.ranked.columns)]).sort("quality", "key").head(images)
        own.known = pl.concat(
            [own.known, scored.join(rows_among(truth, scored["key"]), on="key").select(own.known.columns)]
        )
    for own in listed.values():
        own.ranked = own.ranked.with_row_index("rank", offset=1)
    return listed


def found_errors(known: "pl.DataFrame") -> dict[str, Any]:
    """How many of the true errors the first shares of the list hold, and of a list by confidence; empty without truth.

    ``known``: ``key, label, confidence, quality, truth`` of the kept images whose truth is known.
    """
    if not len(known):
        return {}
    wrong = (known["truth"] != known["label"]).to_numpy()
    figures: dict[str, Any] = {
        "truth_known": len(known),
        "wrong": int(wrong.sum()),
        "of_no_class": int((known["truth"] == NO_CLASS).sum()),
    }
    orders = {name: known.select(name, "key").to_numpy() for name in ("quality", "confidence")}
    for share in FIRST:
        count = max(1, round(share * len(known)))
        figures[f"first_{share:.0%}"] = {"images": count} | {
            f"by_{name}": _found(wrong[np.lexsort((keys[:, 1], keys[:, 0]))[:count]], int(wrong.sum()))
            for name, keys in orders.items()
        }
    return figures


def _found(wrong: NDArray[np.bool_], errors: int) -> dict[str, float]:
    return {
        "wrong": int(wrong.sum()),
        "precision": float(wrong.mean()),
        "share_of_errors": float(wrong.sum() / errors) if errors else 0.0,
    }


def _kept(rounds: Rounds) -> "Iterator[tuple[str, pl.DataFrame, NDArray[np.float64], NDArray[np.int64]]]":
    """Part by part and round by round, of the kept images: the round, ``key, label, confidence``, the mean of its
    chain's runs (N, C), how many of them agree (N,).

    Images that a person corrected are left out.
    """
    import polars as pl

    if not rounds.teachers:
        return
    for part in selection_parts(rounds.selections / next(iter(rounds.teachers))):
        tables = {run: read_part(rounds.predictions / run / "unlabeled" / part.name) for run in rounds.runs}
        for round_ in rounds.teachers:
            path = rounds.selections / round_ / part.name
            decided = read_frame(path, ["key", "label", "confidence", "decision"])
            rows = decided.filter(pl.col("decision") == KEPT).drop("decision")
            if not len(rows):
                continue
            kept, labels = (decided["decision"] == KEPT).to_numpy(), rows["label"].to_numpy()
            chain = [tables[run] for run in rounds.chain(round_)]
            assert all(np.array_equal(table.keys, decided["key"].to_numpy()) for table in chain), "of one corpus"
            mean = sum(probabilities(table.log_probs[kept]) for table in chain) / len(chain)
            agreeing = sum((table.labels[kept] == labels).astype(np.int64) for table in chain)
            yield round_, rows, np.asarray(mean), np.asarray(agreeing)


def _best_other(mean: NDArray[np.float64], labels: NDArray[np.int32]) -> NDArray[np.int64]:
    """The likeliest class but for each image's label, (N,)."""
    others = mean.copy()
    others[np.arange(len(labels)), labels] = -1
    best: NDArray[np.int64] = others.argmax(axis=1)
    return best


def _check_tables(rounds: Rounds, evaluation: Path) -> None:
    """DVC follows the tables through the evaluations, which hold their digests."""
    for run in rounds.runs:
        seen = EvaluatedRecord.read(evaluation / run / "details" / "run.json").tables
        found = {"predictions": made_from_digest(rounds.predictions / run / "unlabeled")}
        if run in rounds.teachers:
            found["selection"] = selection_digest(rounds.selections / run)
        for name, digest in found.items():
            if seen.get(name) != digest:
                raise UserError(f"{run}: {evaluation / run} was made from other {name}; run `dvc repro`")
