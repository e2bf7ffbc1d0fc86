"""The model card: Markdown with the front matter that model hubs read, every figure from the evaluations."""

import re
from math import isnan
from pathlib import Path
from typing import Any

from selftrain.params.runs import chain_of
from selftrain.plumbing.files import read_json
from selftrain.report.page import p_value
from selftrain.report.rounds import stop_lines
from selftrain.report.runs import EvaluatedRun, chain_saw

FEW = 1000
"""Held-out images below which the card warns of wide intervals."""


def write_card(
    path: Path, pipeline: str, runs: list[EvaluatedRun], best: EvaluatedRun, corpus: Path, robustness: Path | None
) -> None:
    """Write a model's card.

    ``runs`` are those of its pipeline, ``corpus`` the one that they were made on, ``robustness`` the figures of the
    robustness pipeline, if they are wanted.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("selftrain.release", "."), undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["percent"] = lambda share: "not known" if isnan(share) else f"{share:.1%}"
    environment.filters["p_value"] = p_value
    environment.filters["markdown"] = as_markdown
    environment.filters["thousands"] = lambda number: f"{number:,}"
    measured = _robustness(best, robustness)
    data = read_json(corpus / "summary.json", "dvc repro ingest")
    card = environment.get_template("card.md").render(
        front_matter=_front_matter(pipeline, best),
        pipeline=pipeline,
        run=best,
        record=best.record,
        metrics=best.metrics,
        chain=_chain(best, runs),
        runs=runs,
        classes=best.record["classes"],
        data=data,
        robustness=measured,
        limits=_limits(best, runs, data, measured),
    )
    path.write_text(card, encoding="utf-8")


def as_markdown(text: str) -> str:
    """A user's text as Markdown that shows just this text."""
    return re.sub(r"([\\`*_{}\[\]()<>#+\-.!|$~&:])", r"\\\1", " ".join(text.split()))


def _front_matter(pipeline: str, best: EvaluatedRun) -> str:
    from huggingface_hub import EvalResult, ModelCardData

    results = [
        EvalResult(
            task_type="image-classification", dataset_type="imagefolder", dataset_name="the project's own corpus",
            dataset_split=split,
            metric_type=kind, metric_value=round(best.metrics[f"{split}_{name}"], 4), metric_name=metric_name,
        )
        for split in ("test", "validation")
        for name, kind, metric_name in (
            ("accuracy", "accuracy", "accuracy"),
            ("calibration_error", "expected_calibration_error", "expected calibration error"),
        )
    ]  # fmt: skip
    data = ModelCardData(
        library_name="timm",
        pipeline_tag="image-classification",
        tags=["image-classification", "timm", "self-training", best.record["algorithm"].replace("_", "-")],
        model_name=f"{pipeline}-{best.name}",
        eval_results=results,
    )
    return str(data.to_yaml())


def _chain(best: EvaluatedRun, runs: list[EvaluatedRun]) -> list[EvaluatedRun]:
    """The first teacher, …, the model itself."""
    by_name = {run.name: run for run in runs}
    chain = chain_of(best.name, {run.name: run.teacher for run in runs})
    return [by_name[name] for name in reversed(chain) if name in by_name]


def _robustness(best: EvaluatedRun, figures: Path | None) -> dict[str, Any] | None:
    """The robustness figures of these very weights; None if only others were tested."""
    if figures is None:
        return None
    tested: dict[str, dict[str, Any]] = read_json(figures, "dvc repro pipelines/robustness/dvc.yaml")
    of_best = [of_run for of_run in tested.values() if of_run["weights"] == best.record["weights"]]
    return of_best[0] if of_best else None


def _limits(
    best: EvaluatedRun, runs: list[EvaluatedRun], data: dict[str, Any], robustness: dict[str, Any] | None
) -> list[str]:
    """What a user of the model must know: each line follows from a figure."""
    limits = ["It knows its classes and no others: an image of none of them gets one of their names."]
    for split in ("validation", "test"):
        if (images := data[split]["images"]) < FEW:
            low, high = (best.metrics[f"{split}_accuracy_{end}"] for end in ("low", "high"))
            limits.append(f"{images:,} {split} images tell its accuracy to {low:.1%} – {high:.1%} only.")
    seen = {name: share for name, share in best.record["per_class_accuracy"].items() if not isnan(share)}
    if len(seen) < len(best.record["classes"]):
        limits.append(
            f"{len(best.record['classes']) - len(seen)} classes have no test image: nothing is known of them."
        )
    worst = min(seen.items(), key=lambda item: item[1])
    if worst[1] < best.metrics["test_accuracy"] - 0.05:
        limits.append(f"It is worst at {as_markdown(worst[0])}: {worst[1]:.1%} of the test images.")
    if best.metrics.get("classes_without_pseudo_labels"):
        limits.append(f"{best.metrics['classes_without_pseudo_labels']} classes had no pseudo-label at all.")
    if best.metrics.get("out_of_domain_kept"):
        limits.append(
            f"{best.metrics['out_of_domain_kept']:,} images known to be of no class were among its pseudo-labels."
        )
    if leaks := data["unlabeled"]["leaks"] + data["unlabeled"]["near_leaks"]:
        left_out = (best.metrics.get("decisions") or {}).get("leak", 0) if best.is_round else leaks
        found = f"{leaks:,} copies of held-out images were found in the pool"
        if left_out >= leaks:
            limits.append(f"{found} and left out; others may be there.")
        else:
            limits.append(f"{found}, and only {left_out:,} were left out: its accuracy is too high.")
    if chain_saw(best, "test", runs):
        limits.append("It or a teacher of its chain was trained on test images: its test accuracy is too high.")
    if robustness is None:
        limits.append("How it does on corrupted, perturbed or attacked images was not measured.")
    return limits + [f"{line}." for line in stop_lines(runs)]
