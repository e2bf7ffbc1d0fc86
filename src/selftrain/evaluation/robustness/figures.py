"""From the runs' robustness tables to figures; imports no PyTorch."""

from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from selftrain.evaluation.metrics import proportion_interval
from selftrain.evaluation.robustness.measures import (
    ALEXNET_ERRORS,
    ALEXNET_FLIPS,
    flip_probability,
    relative,
    subset_accuracy,
)
from selftrain.evaluation.robustness.perturbations import NOISES
from selftrain.plumbing.errors import UserError
from selftrain.tables.keys import split_of
from selftrain.tables.records import TestedRecord
from selftrain.tables.robustness import read_suite, table_runs

if TYPE_CHECKING:
    import polars as pl

ALEXNET = "alexnet"
MEASURED = {"corruptions", "perturbations", "adversarial", "randaugment", "folders"}
"""Suites with measures of their own; of every other suite there is the accuracy under each condition."""


def robustness_figures(tables: Path, names: Collection[str] | None, reference: str) -> dict[str, dict[str, Any]]:
    """The figures of the runs in ``names`` (None: of all that have tables), by name.

    ``reference`` is the run that mCE and mFR are relative to, or ``alexnet``. Raises UserError if there are no tables,
    if the reference is not among the runs or lacks a suite that they have, or if they were tested at different sizes.
    """
    folders = {folder.name: folder for folder in table_runs(tables, names)}
    if reference not in {*folders, ALEXNET}:
        raise UserError(
            f"robustness.reference: '{reference}' has no robustness tables; there are: {', '.join(folders)}"
        )
    errors = {name: corruption_errors(read_suite(folder, "corruptions")) for name, folder in folders.items()}
    flips = {name: flip_probabilities(read_suite(folder, "perturbations")) for name, folder in folders.items()}
    of_reference = ALEXNET_ERRORS if reference == ALEXNET else errors[reference]
    flips_of_reference = ALEXNET_FLIPS if reference == ALEXNET else flips[reference]
    _check_comparable(folders, errors, flips, reference)
    found: dict[str, dict[str, Any]] = {}
    for name, folder in folders.items():
        of_run: dict[str, Any] = {"reference": reference}
        if errors[name]:
            corruption = relative(errors[name], of_reference)
            of_run |= {"mce": corruption.mean, "mean_corruption_error": float(np.mean([*errors[name].values()]))}
            of_run |= {"corruption_errors": errors[name], "ce": corruption.each, "ce_undefined": corruption.undefined}
        if flips[name]:
            perturbation = relative(flips[name], flips_of_reference)
            of_run |= {"mfr": perturbation.mean, "mean_flip_probability": float(np.mean([*flips[name].values()]))}
            of_run |= {
                "flip_probabilities": flips[name],
                "fr": perturbation.each,
                "fr_undefined": perturbation.undefined,
            }
        for attack, table in read_suite(folder, "adversarial").items():
            of_run[attack] = {f"{level:g}": accuracy for level, accuracy in _by_level(table).items()}
        for view, table in read_suite(folder, "randaugment").items():
            of_run[view] = _passes(table)
        of_run["folders"] = {folder_: _folder(table) for folder_, table in read_suite(folder, "folders").items()}
        if others := _other_suites(folder):
            of_run["other_suites"] = others
        found[name] = of_run
    return found


def _check_comparable(
    folders: dict[str, Path], errors: dict[str, dict[str, float]], flips: dict[str, dict[str, float]], reference: str
) -> None:
    sizes = {name: TestedRecord.read(folder / "run.json").robustness_size for name, folder in folders.items()}
    if len(set(sizes.values())) > 1:
        each = ", ".join(f"{name} {size}" for name, size in sizes.items())
        raise UserError(
            f"runs were tested at different sizes ({each} pixels); set `robustness.image_size` for all of them"
        )
    for suite, of_runs in (("corruptions", errors), ("perturbations", flips)):
        of_reference = of_runs.get(reference)
        if of_reference is not None and any(of_run.keys() - of_reference.keys() for of_run in of_runs.values()):
            raise UserError(
                f"robustness.reference: '{reference}' lacks tables of {suite} that others have; run it again"
            )


def _other_suites(folder: Path) -> dict[str, dict[str, float]]:
    """Suite → condition → accuracy, the mean over the levels."""
    suites = sorted(path.name for path in folder.iterdir() if path.is_dir() and path.name not in MEASURED)
    return {
        suite: {name: float(np.mean([*_by_level(table).values()])) for name, table in read_suite(folder, suite).items()}
        for suite in suites
    }


def corruption_errors(tables: "dict[str, pl.DataFrame]") -> dict[str, float]:
    """Each corruption's error, the mean over its severities."""
    return {name: float(np.mean([1 - accuracy for accuracy in _by_level(t).values()])) for name, t in tables.items()}


def flip_probabilities(tables: "dict[str, pl.DataFrame]") -> dict[str, float]:
    """Each perturbation's flip probability."""
    found = {}
    for name, table in tables.items():
        images = table["key"].n_unique()
        rows = table.sort("key", "level")["predicted"].to_numpy().reshape(images, -1)  # (N, frames)
        found[name] = flip_probability(rows, name in NOISES)
    return found


def scalars(figures: dict[str, Any]) -> dict[str, float]:
    """A run's figures that MLflow can hold, flat."""
    flat: dict[str, float] = {}
    for name, value in figures.items():
        if isinstance(value, dict):
            flat |= {f"{name}.{inner}": number for inner, number in scalars(value).items()}
        elif isinstance(value, float) and not np.isnan(value):
            flat[name] = value
    return flat


def _by_level(table: "pl.DataFrame") -> dict[float, float]:
    """Accuracy at each level."""
    import polars as pl

    right = table.group_by("level").agg((pl.col("label") == pl.col("predicted")).mean().alias("accuracy"))
    return dict(right.sort("level").iter_rows())


def _passes(table: "pl.DataFrame") -> dict[str, Any]:
    """Accuracy on each split, the mean over passes, with the passes' standard deviation; None of a single pass."""
    import polars as pl

    splits = [split_of(key) for key in table["key"].to_list()]
    found: dict[str, Any] = {}
    for (split,), rows in table.with_columns(split=pl.Series(splits)).group_by("split"):
        each = [*_by_level(rows).values()]
        deviation = float(np.std(each, ddof=1)) if len(each) > 1 else None
        found |= {
            f"{split}_accuracy": float(np.mean(each)),
            f"{split}_deviation": deviation,
            f"{split}_passes": len(each),
        }
    return found


def _folder(table: "pl.DataFrame") -> dict[str, Any]:
    """Top-1 and top-5 over the classes that the folder has, with top-1's interval."""
    labels = table["label"].to_numpy()
    packed = table["log_probs"].to_list()
    log_probs = np.frombuffer(b"".join(packed), np.float16).reshape(len(packed), -1).astype(np.float32)
    classes = np.unique(labels)
    top1 = subset_accuracy(log_probs, labels, classes, 1)
    low, high = proportion_interval(round(top1 * len(labels)), len(labels))
    top5 = subset_accuracy(log_probs, labels, classes, 5)
    return {
        "images": len(labels),
        "classes": len(classes),
        "top1": top1,
        "top1_low": low,
        "top1_high": high,
        "top5": top5,
    }
