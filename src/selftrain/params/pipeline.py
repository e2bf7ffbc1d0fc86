"""What params.yaml says of its pipeline as a whole: its name, its corpus, and which stages it has."""

import re
from pathlib import PurePosixPath
from typing import Annotated

from pydantic import AfterValidator, Field

from selftrain.plumbing.sections import MODULE_NAME, Section


def _inside(path: str) -> str:
    if not path or PurePosixPath(path).is_absolute() or ".." in PurePosixPath(path).parts:
        raise ValueError("expected a path inside the project")
    if re.search(r"""["$`\\\n]""", path):
        raise ValueError("a stage's command cannot have a path with \", $, ` or \\ in it")
    return path


RelativePath = Annotated[str, AfterValidator(_inside)]


class StagesConfig(Section):
    """``stages``: those that not every pipeline has. Each makes what its list names; an empty list leaves it out."""

    code: list[str]
    """The folder of the program's source, if it lies in the project. Give this or ``installed_code``."""
    installed_code: list[str]
    """Any one word, if the program is an installed package."""
    digits: list[RelativePath]
    """The folder of the built-in digits."""
    shift: list[RelativePath]
    """The folder of the shifted images."""
    ingest: list[RelativePath]
    """The corpus, where it is this pipeline's own."""
    results: list[str]
    """The pipeline's own name: its review, report and best model."""
    robustness_figures: list[str]
    """The pipeline's own name: figures of what stands under ``tested``."""
    card: list[str]
    """Another pipeline, whose best model gets a card with these robustness figures."""
    footprint: list[str]
    """The pipeline's own name: what its models cost."""
    replication: list[str]
    """The pipeline's own name: the small-scale replication's tables."""


class PipelineConfig(Section):
    """The entries of params.yaml that are no section of a stage."""

    pipeline: str = Field(pattern=MODULE_NAME)
    """Names the folders under ``models``, ``predictions`` and so on, and the tag in MLflow."""
    corpus: RelativePath
    """Where the images are: this pipeline's own corpus or another's."""
    corrections: RelativePath
    """What people said of single images of that corpus."""
    runs: list[str]
    """The runs that predict and are evaluated: all that stand in the sections of runs."""
    tested: dict[str, str]
    """Models under ``models`` that are put through the robustness suites, by the names that they get."""
    stages: StagesConfig
