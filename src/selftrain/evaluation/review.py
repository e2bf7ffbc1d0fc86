"""The stage ``review``: which pseudo-labels a person should look at first.

Every run of the chain, the first teacher and all students, has an opinion of every image. Their mean is held against
the label that a round trains on by confident learning (Northcutt et al. 2021, arXiv 1911.00068): the label's
probability less what is usual for images of its class, so that classes which are always doubtful do not fill the list.
Confidence alone asks only the run that gave the label.
"""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from selftrain.corpus.truth import NO_CLASS
from selftrain.errors import UserError
from selftrain.evaluation.out_of_domain import suspects
from selftrain.evaluation.review_config import ReviewConfig
from selftrain.files import atomic_path, read_json, write_json
from selftrain.predictions.selection import KEPT, selection_digest, selection_parts
from selftrain.predictions.table import made_from_digest, prediction_classes, read_part

if TYPE_CHECKING:
    import polars as pl

FIRST = (0.01, 0.05)
"""Shares of the list whose errors are counted where truth is known."""


@dataclass(frozen=True)
class Chain:
    """The rounds of a pipeline, each with its teacher, and where its tables lie."""

    teachers: dict[str, str]
    """Round → the run that gave its pseudo-labels, in the order of the rounds."""
    predictions: Path
    selections: Path

    @property
    def runs(self) -> list[str]:
        """Every run that is a round or a round's teacher."""
        return list(dict.fromkeys([*self.teachers.values(), *self.teachers]))


def review(chain: Chain, evaluation: Path, corpus: Path, config: ReviewConfig, out: Path) -> dict[str, Any]:
    """Write ``out/<round>.parquet``, most doubtful first, for every round, and ``out/summary.json``; return the latter.

    ``out/out_of_domain.parquet`` lists what shows perhaps none of the classes.

    Columns: ``rank, key, label, confidence, suggested`` (the class that the runs' mean prefers), ``quality`` (0–1,
    cleanlab's; low is doubtful), ``agreeing`` (how many runs give the label), ``runs`` (of how many).

    Raises UserError if a table is not the one that ``evaluation`` saw.
    """
    import polars as pl

    _check_tables(chain, evaluation)
    truth = pl.read_parquet(corpus / "truth.parquet", glob=False).rename({"label": "truth"})
    shutil.rmtree(out, ignore_errors=True)
    summary = {}
    for round_ in chain.teachers:
        listed, about = review_round(chain, round_, truth, config.images)
        with atomic_path(out / f"{round_}.parquet") as temporary:
            listed.write_parquet(temporary, compression="zstd")
        summary[round_] = about
    first = [run for run in chain.runs if run not in chain.teachers]
    listed, about = suspects([chain.predictions / run / "unlabeled" for run in first], truth, config.images)
    with atomic_path(out / "out_of_domain.parquet") as temporary:
        listed.write_parquet(temporary, compression="zstd")
    summary["out_of_domain"] = about
    write_json(out / "summary.json", summary)
    return summary


def review_round(
    chain: Chain, round_: str, truth: "pl.DataFrame", images: int
) -> "tuple[pl.DataFrame, dict[str, Any]]":
    """A round's list, and what there is to tell of it. The tables are read twice, part by part."""
    import polars as pl
    from cleanlab.experimental.label_issues_batched import LabelInspector

    columns = {
        "key": pl.Int64, "label": pl.Int32, "confidence": pl.Float32, "suggested": pl.Int32,
        "quality": pl.Float64, "agreeing": pl.Int32, "runs": pl.Int32,
    }  # fmt: skip
    classes = prediction_classes(chain.predictions / chain.teachers[round_] / "unlabeled")
    inspector = LabelInspector(
        num_class=len(classes),
        store_results=False,
        verbose=False,
        quality_score_kwargs={"method": "self_confidence", "adjust_pred_probs": True},
    )
    for rows, mean, _ in _kept(chain, round_):
        inspector.update_confident_thresholds(rows["label"].to_numpy(), mean)
    listed, kept = pl.DataFrame(schema=columns), 0
    known = [pl.DataFrame(schema={"key": pl.Int64, "label": pl.Int32, "truth": pl.Int32})]
    for rows, mean, agreeing in _kept(chain, round_):
        quality = inspector.score_label_quality(rows["label"].to_numpy(), mean, update_num_issues=False)
        scored = rows.with_columns(
            suggested=pl.Series(mean.argmax(axis=1), dtype=pl.Int32),
            quality=pl.Series(quality, dtype=pl.Float64),
            agreeing=pl.Series(agreeing, dtype=pl.Int32),
            runs=pl.lit(len(chain.runs), pl.Int32),
        )
        kept += len(rows)
        listed = pl.concat([listed, scored.select(listed.columns)]).sort("quality", "key").head(images)
        known.append(scored.select("key", "label", "confidence", "quality").join(truth, on="key"))
    ranked = listed.with_row_index("rank", offset=1)
    return ranked, {"kept": kept, "listed": len(ranked)} | found_errors(pl.concat(known, how="diagonal"))


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


def _kept(chain: Chain, round_: str) -> "Iterator[tuple[pl.DataFrame, NDArray[np.float64], NDArray[np.int64]]]":
    """Part by part, of the kept images: ``key, label, confidence``, the runs' mean (N, C), how many agree (N,).

    What a person corrected is no longer in question.
    """
    import polars as pl

    for part in selection_parts(chain.selections / round_):
        decided = pl.read_parquet(part, columns=["key", "label", "confidence", "decision"], glob=False)
        rows = decided.filter(pl.col("decision") == KEPT).drop("decision")
        if not len(rows):
            continue
        kept = (decided["decision"] == KEPT).to_numpy()
        mean: NDArray[np.float64] | None = None
        agreeing = np.zeros(len(rows), np.int64)
        for run in chain.runs:
            table = read_part(chain.predictions / run / "unlabeled" / part.name)
            assert np.array_equal(table.keys, decided["key"].to_numpy()), "_check_tables saw to that"
            probs = _opinions(table.log_probs[kept])
            mean = probs / len(chain.runs) if mean is None else mean + probs / len(chain.runs)
            agreeing += table.labels[kept] == rows["label"].to_numpy()
        assert mean is not None
        yield rows, mean, agreeing


def _opinions(log_probs: NDArray[np.float16]) -> NDArray[np.float64]:
    """Probabilities that sum to 1, (N, C); a run that says NaN has no opinion."""
    probs = np.exp(log_probs.astype(np.float64))
    probs[~np.isfinite(probs).all(axis=1)] = 1
    normalised: NDArray[np.float64] = probs / probs.sum(axis=1, keepdims=True)
    return normalised


def _check_tables(chain: Chain, evaluation: Path) -> None:
    """DVC follows the tables through the evaluations, which hold their digests."""
    for run in chain.runs:
        seen = read_json(evaluation / run / "details" / "run.json", "dvc repro")["tables"]
        found = {"predictions": made_from_digest(chain.predictions / run / "unlabeled")}
        if run in chain.teachers:
            found["selection"] = selection_digest(chain.selections / run)
        for name, digest in found.items():
            if seen.get(name) != digest:
                raise UserError(f"{run}: {evaluation / run} was made from other {name}; run `dvc repro`")
