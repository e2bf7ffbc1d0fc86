"""A run of a project in a notebook."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from selftrain import project as folders
from selftrain.api.shown import Svg
from selftrain.plumbing.errors import UserError
from selftrain.plumbing.sections import did_you_mean
from selftrain.tables.records import Metrics

if TYPE_CHECKING:
    import polars as pl

    from selftrain.api.model import Model
    from selftrain.api.project import Project


class Run:
    """One run of a pipeline."""

    def __init__(self, project: "Project", run: folders.Run) -> None:
        self._project, self._run = project, run
        self.name, self.teacher = run.name, run.teacher

    def __repr__(self) -> str:
        return f"Run({self.name!r})"

    def selection(self) -> "pl.DataFrame":
        """What it was trained on: ``key, label, confidence, decision, copies, weight``, a row an unlabeled image.

        Raises UserError for a run without a teacher, and before `dvc repro` made it.
        """
        from selftrain.tables.parquet import collect
        from selftrain.tables.selection import scan_selection

        folder = self._selection_folder()
        return collect(scan_selection(folder), folder)

    def _selection_folder(self) -> Path:
        if self._run.selection is None:
            raise UserError(f"{self.name}: it was trained on labeled images alone, so it has no selection")
        return self._run.selection

    def predictions(self, split: str = "unlabeled") -> "pl.DataFrame":
        """Its predictions: ``key, label, confidence`` and ``log_probs``, a list of C numbers."""
        import polars as pl

        from selftrain.tables.predictions import iter_predictions

        frames = []
        for _, part in iter_predictions(self._run.predictions / split):
            columns = {"key": part.keys, "label": part.labels, "confidence": part.confidences}
            frames.append(pl.DataFrame(columns | {"log_probs": part.log_probs.astype("float32")}))
        return pl.concat(frames)

    def metrics(self) -> dict[str, Any]:
        """Its figures, as ``metrics.json`` has them."""
        return Metrics.read(self._run.evaluation / "metrics.json").as_dict()

    def model(self) -> "Model":
        """Its model, ready to classify images."""
        from selftrain.api.model import load

        return load(self._run.model)

    def review(self) -> "pl.DataFrame":
        """Its pseudo-labels that are most likely wrong, the worst first."""
        from selftrain.tables.parquet import read_frame

        return read_frame(self._project.folders.review / f"{self.name}.parquet")

    def advice(self) -> str:
        """What is expected of its labels, and which threshold to use. Raises UserError for a run without a teacher."""
        from selftrain.report.label_quality import advice

        self._selection_folder()
        return advice(self._project.evaluated(self.name))

    def map(self) -> Svg:
        """The pool as a map by its embeddings: labels, and what was decided."""
        from selftrain.inspection.pool_map import pool_map_svg

        pool = self._project.pool
        runs = {run.name: run for run in pool.runs}
        if self.name not in runs:
            raise UserError(f"{self.name}: has predicted nothing yet; run `dvc repro`")
        return Svg(pool_map_svg(pool, runs[self.name], self._project.classes))


class Runs(dict[str, Run]):
    """A project's runs by name. A name that there is not raises UserError naming those there are."""

    def __missing__(self, name: str) -> NoReturn:
        raise UserError(f"there is no run '{name}'; {did_you_mean(name, list(self))}")
