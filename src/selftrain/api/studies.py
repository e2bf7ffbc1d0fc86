"""Studies of papers: grids of experiments, and what MLflow has of them."""

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from selftrain.api.shown import Svg

if TYPE_CHECKING:
    import polars as pl


@dataclass(frozen=True)
class Study:
    """One study of a project's ``studies.yaml``."""

    name: str
    pipeline: str
    question: str
    source: str
    """Where the question comes from."""
    expected: str
    """What the source found."""
    arms: tuple[str, ...]
    root: Path
    """The project's folder."""

    def figures(self) -> "pl.DataFrame":
        """``arm, run, seed, value``: test accuracy of every finished experiment. Raises UserError if there is none."""
        from selftrain.studies.results import figures

        with contextlib.chdir(self.root):
            return figures(self.name, self.arms)

    def summary(self) -> "pl.DataFrame":
        """Each arm's mean with its 95% interval, and its difference to the first arm, paired by seed."""
        from selftrain.studies.results import summary

        return summary(self.figures())

    def chart(self) -> Svg:
        """Single seeds, means and intervals, arm by arm."""
        from selftrain.studies.plots import study_svg

        return Svg(study_svg(self.summary(), self.figures(), self.name))


def studies(root: str | Path = ".") -> dict[str, Study]:
    """All studies of a project by name."""
    from selftrain.project import PIPELINES
    from selftrain.studies.study import all_studies, load_study

    found, root = {}, Path(root).resolve()
    for name in all_studies(root / PIPELINES):
        study, pipeline = load_study(name, root / PIPELINES)
        found[name] = Study(name, pipeline, study.question, study.source, study.expected, tuple(study.arms), root)
    return found
