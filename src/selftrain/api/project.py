"""A project in a notebook: its tables as polars frames, its charts, its runs."""

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from selftrain import project as folders
from selftrain.api.run import Run, Runs
from selftrain.api.shown import Html, Svg
from selftrain.plumbing.errors import UserError
from selftrain.tables.corpus import classes_of

if TYPE_CHECKING:
    import polars as pl

    from selftrain.inspection.tables import Pool
    from selftrain.report.runs import EvaluatedRun


def open(path: str | Path = ".", pipeline: str | None = None) -> "Project":
    """A project by its folder; ``pipeline`` names one of its pipelines, None is the one of its params.yaml.

    Raises UserError if there is no project or no such pipeline.
    """
    return Project(folders.Project.open(Path(path).resolve(), pipeline))


def init(
    path: str | Path,
    *,
    labeled: str | Path,
    pool: str | Path,
    validation: str | Path | None = None,
    test: str | Path | None = None,
    model: str | None = None,
) -> "Project":
    """Make a project for these images and open it: what `selftrain init` does. ``labeled`` has a folder a class."""
    from selftrain.start.init import init as write

    held_out = [None if folder is None else Path(folder) for folder in (validation, test)]
    write(Path(path), Path(labeled), Path(pool), held_out[0], held_out[1], model)
    return open(path)


class Project:
    """One pipeline of a project, as ``st.open`` gives it."""

    def __init__(self, paths: folders.Project) -> None:
        self._take(paths)

    def _take(self, paths: folders.Project) -> None:
        self.folders = paths
        self.name = paths.name
        self.runs = Runs({name: Run(self, run) for name, run in paths.runs.items()})
        for read in ("pool", "classes"):
            self.__dict__.pop(read, None)

    def __repr__(self) -> str:
        return f"Project({str(self.folders.root)!r}, pipeline {self.name!r})"

    @cached_property
    def classes(self) -> list[str]:
        """The classes' names by index."""
        return classes_of(self.folders.corpus)

    @property
    def rounds(self) -> list[Run]:
        """The runs that were trained on pseudo-labels and evaluated, in the order of their chain."""
        return [self.runs[run.name] for run in self._evaluated() if run.is_round]

    def repro(self, *targets: str) -> None:
        """Do what `dvc repro` does, printing what it prints, and take params.yaml as it is now.

        ``targets`` are stages of this pipeline, as ``train@student1``; none: all. Raises UserError if a stage fails.
        """
        self._take(folders.Project.open(self.folders.root, self.name))
        stages = self.folders.params_path.with_name("dvc.yaml").relative_to(self.folders.root)
        wanted = [target if ":" in target else f"{stages}:{target}" for target in targets] or [str(stages)]
        command = [sys.executable, "-m", "dvc", "repro", *wanted]
        # A notebook's kernel may run in an environment that is not on the path, where stages look for `selftrain`.
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
        process = subprocess.Popen(
            command,
            cwd=self.folders.root,
            env=os.environ | {"PATH": path},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert process.stdout is not None
        for line in process.stdout:
            print(line, end="", flush=True)
        self._take(self.folders)
        if process.wait():
            raise UserError("dvc repro failed; what it printed says why")

    def summary(self) -> "pl.DataFrame":
        """A row a run: test accuracy with its interval, coverage, how many pseudo-labels are right, seconds."""
        import polars as pl

        columns = ("test_accuracy", "test_accuracy_low", "test_accuracy_high", "validation_accuracy", "coverage")
        more = ("pseudo_label_accuracy", "train_seconds")
        rows = [
            {"run": run.name} | {name: run.metrics.get(name) for name in (*columns, *more)} for run in self._evaluated()
        ]
        return pl.DataFrame(rows, infer_schema_length=None)

    def decisions(self) -> "pl.DataFrame":
        """``round, label, decision, images, copies`` of every round's selection."""
        from selftrain.inspection.tables import tally_rounds

        return tally_rounds(self.pool)

    def history(self, keys: Iterable[int]) -> list[str]:
        """Images' ways through the rounds, a line each, by key."""
        from selftrain.inspection.rounds import history
        from selftrain.inspection.tables import rows_of

        rows = rows_of(self.pool, set(keys)).iter_rows(named=True)
        return [f"{row['key']} {history(row, self.pool.runs, self.classes)}" for row in rows]

    def chart(self, name: str) -> Svg:
        """A chart of the report: accuracy, calibration, confusion, precision, confidence, thresholds, balance."""
        from selftrain.report.build import make_charts
        from selftrain.report.rounds import best_run

        runs = self._evaluated()
        charts = make_charts(runs, [run for run in runs if run.is_round], best_run(runs))
        if name not in charts:
            raise UserError(f"there is no chart '{name}'; there are: {', '.join(charts)}")
        return Svg(charts[name])

    def pictures(self, images: int = 24) -> Html:
        """The last round's most doubtful labels, and what is suspected to be of no class, as pictures."""
        from selftrain.report.page import render

        return Html(render("style.html") + render("grids.html", grids=self._review_section(images).grids))

    def review_measured(self) -> "pl.DataFrame":
        """Where truth is known: the share of a round's errors that its list finds, against a list by confidence."""
        import polars as pl

        rows = [
            {
                "round": name,
                "first": share,
                "images": found["images"],
                "errors found by quality": found["by_quality"]["share_of_errors"],
                "errors found by confidence": found["by_confidence"]["share_of_errors"],
            }
            for name, share, found in self._review_section(1).measured
        ]
        return pl.DataFrame(rows)

    def diff(self, run_a: str, run_b: str | None = None, rev: str | None = None, examples: int = 5) -> None:
        """Print what entered, left, flipped between two rounds, or between a git revision's round and this one."""
        from selftrain.history.compare import compare, print_diff

        with self._there():
            print_diff(compare(self.folders.selections, run_a, run_b or run_a, rev, examples))

    def browse(self, view: str | None = None, port: int = 5151) -> Any:
        """Build the FiftyOne dataset and open the App on one of its saved views; returns the session."""
        from selftrain.inspection.app import open_session

        with self._there():
            return open_session(self.folders, port, view)

    def corrections(self) -> "pl.DataFrame":
        """What people said of single images."""
        from selftrain.tables.corrections import read_corrections

        return read_corrections(self.folders.corrections)

    def ask(self, budget: int = 20) -> "pl.DataFrame":
        """The images that a person should label next, as `selftrain ask` chooses them: ``key, rank, label, …``."""
        from selftrain.selection.ask import ask

        with self._there():
            return ask(self.folders, budget)[1]

    def move_to_labeled(self) -> list[Path]:
        """Make labeled images of the corrected ones, `selftrain corrections to-labeled`; returns their files."""
        from selftrain.corpus.answers import move_to_labeled
        from selftrain.params.ingest import IngestConfig
        from selftrain.plumbing.locks import sole_writer

        paths = self.folders
        with self._there(), sole_writer(paths.corrections):
            return move_to_labeled(paths.corrections, paths.corpus, paths.section("ingest", IngestConfig))

    def correct_by_truth(self, keys: Sequence[int], labels: Sequence[int] | None = None) -> int:
        """Correct images as a person would who knows hidden truth; returns how many were corrected.

        For examples. ``labels`` are pseudo-labels, of which right ones are left alone; None: all images are told.
        """
        from selftrain.inspection.stand_in import correct_by_truth
        from selftrain.plumbing.locks import sole_writer

        with self._there(), sole_writer(self.folders.corrections):
            return correct_by_truth(keys, labels, self.folders.corpus, self.folders.corrections)

    def tracked(self) -> "pl.DataFrame":
        """Each run's newest finished training in MLflow: ``run, run_id, teacher`` and every final figure."""
        from selftrain.report.mlflow_runs import newest_runs

        with self._there():
            return newest_runs(self.name, self.runs)

    def curves(self, *metrics: str) -> Svg:
        """Curves of the trainings over one another, from MLflow, a panel a metric."""
        from selftrain.report.mlflow_runs import curves_svg

        with self._there():
            return Svg(curves_svg(self.tracked(), list(metrics)))

    def parallel(self, *metrics: str) -> Svg:
        """The rounds' final figures from MLflow, a line a round, an axis a metric."""
        from selftrain.report.mlflow_runs import parallel_svg

        return Svg(parallel_svg(self.tracked(), list(metrics)))

    def _there(self) -> contextlib.AbstractContextManager[None]:
        """While it lasts, this process works in the project's folder, as its commands do."""
        return contextlib.chdir(self.folders.root)

    @cached_property
    def pool(self) -> "Pool":
        """The tables of the unlabeled images."""
        from selftrain.inspection.app import pool_of

        return pool_of(self.folders)

    def evaluated(self, name: str) -> "EvaluatedRun":
        """A run's evaluation. Raises UserError if there is none yet."""
        for run in self._evaluated():
            if run.name == name:
                return run
        raise UserError(f"{name}: not evaluated yet; run `dvc repro`")

    def _evaluated(self) -> "list[EvaluatedRun]":
        from selftrain.report.runs import load_runs

        return load_runs(self.folders.evaluations, self.runs)

    def _review_section(self, images: int) -> Any:
        from selftrain.report.review_section import review_section

        names = [run.name for run in self._evaluated() if run.is_round]
        return review_section(self.folders.review, names, self.folders.corpus / "unlabeled", self.classes, images)
