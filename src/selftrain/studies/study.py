"""The files that write the pipelines' studies down."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import Field

from selftrain.plumbing.errors import UserError
from selftrain.plumbing.sections import Section, did_you_mean, load_params, merged, parse_section
from selftrain.project import PARAMS, PIPELINES, Project

STUDY_NAME = re.compile(r"[A-Za-z0-9][\w-]*", re.ASCII)
"""What git, DVC and a query of MLflow take."""
PLAIN_WORD = re.compile(r"(?!(?:null|true|false|inf|nan)$)[a-z][\w./-]*", re.ASCII | re.IGNORECASE)
"""Text that Hydra takes for text without quotes."""


class Arm(Section):
    """One way of doing it."""

    set: dict[str, Any] = {}
    """What it has otherwise than params.yaml, laid over the study's ``set``."""
    set_corpus: dict[str, Any] = {}
    """What it has otherwise than the root's params.yaml, which the corpus of most pipelines is made by."""
    measure: list[str] | None = None
    """Runs whose figures it gives, if not the study's."""


class Study(Section):
    """One question and the arms that answer it; the first arm is what the others are compared with."""

    question: str
    source: str
    """Where the question comes from: a paper's table or finding."""
    expected: str
    """What that source found."""
    measure: list[str] = Field(min_length=1)
    """Runs whose figures are recorded."""
    seeds: list[int] = Field(default=list(range(10)), min_length=1)
    set: dict[str, Any] = {}
    """What every arm has otherwise than params.yaml."""
    arms: dict[str, Arm] = Field(min_length=1)

    def measured(self, arm: str) -> list[str]:
        """The runs that an arm gives figures of."""
        return self.arms[arm].measure or self.measure

    def overrides(self, arm: str, seed: int, pipeline: str) -> list[str]:
        """An arm's parameters as `dvc exp run --set-param` takes them.

        The seed is the root's too, which draws the labeled images of all pipelines.
        """
        params = Project.open(pipeline=pipeline).params_path
        own = merged(merged(self.set, self.arms[arm].set), {"seed": seed})
        corpus = merged(self.arms[arm].set_corpus, {"seed": seed})
        if params == PARAMS:
            return _overrides(merged(own, corpus))
        return [*(f"{params}:{override}" for override in _overrides(own)), *_overrides(corpus)]


def all_studies(pipelines: Path = PIPELINES) -> dict[str, str]:
    """The names of all studies, and the pipeline of each. Raises UserError for a name that is there twice."""
    found: dict[str, str] = {}
    for path in sorted(pipelines.glob("*/studies.yaml")):
        for name in load_params(path):
            if not STUDY_NAME.fullmatch(str(name)):
                raise UserError(f"{path}: {name!r} cannot name a study; use letters, digits, - and _")
            if name in found:
                raise UserError(f"{path}: {name}: {pipelines / found[name]} has a study of this name; rename one")
            found[name] = path.parent.name
    return found


def load_study(name: str, pipelines: Path = PIPELINES) -> tuple[Study, str]:
    """A study by name, and its pipeline. Raises UserError naming those there are."""
    studies = all_studies(pipelines)
    if name not in studies:
        raise UserError(f"{pipelines}/*/studies.yaml: there is no study '{name}'; {did_you_mean(name, list(studies))}")
    path = pipelines / studies[name] / "studies.yaml"
    return parse_section(load_params(path)[name], Study, f"{path}: {name}"), studies[name]


def experiment_name(study: str, arm: str, seed: int) -> str:
    """A name that git and DVC take."""
    return f"{study}-{re.sub(r'[^a-z0-9]+', '-', arm.lower()).strip('-')}-{seed}".replace("_", "-")


def _overrides(values: dict[str, Any]) -> list[str]:
    return [f"++{path}={_as_hydra(value)}" for path, value in _leaves(values)]


def _leaves(values: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, dict) and value:
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _as_hydra(value: Any) -> str:
    if isinstance(value, list):
        return f"[{','.join(map(_as_hydra, value))}]"
    if isinstance(value, dict):
        return f"{{{','.join(f'{key}:{_as_hydra(item)}' for key, item in value.items())}}}"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, str) and not PLAIN_WORD.fullmatch(value):
        # A backslash means itself but before a quote.
        return "'" + re.sub(r"(\\*)('|$)", lambda found: found[1] * 2 + ("\\'" if found[2] else ""), value) + "'"
    return str(value)
