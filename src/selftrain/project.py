"""A project's folder: its pipelines, their parameters and runs, and where everything of them lies."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self

from selftrain.params.adopted import AdoptedConfig, adopted_config
from selftrain.params.pipeline import PipelineConfig
from selftrain.params.runs import ADOPTED, all_runs, chain_of, run_entry, train_config
from selftrain.params.select import SelectConfig, select_config
from selftrain.params.train import TrainConfig
from selftrain.plumbing.errors import UserError
from selftrain.plumbing.hardware import HARDWARE_HERE, HardwareConfig, hardware_here
from selftrain.plumbing.locks import WORK
from selftrain.plumbing.sections import SectionT, did_you_mean, load_params, load_seed, parse_overlaid, parse_section

PARAMS = Path("params.yaml")
PIPELINES = Path("pipelines")


@dataclass(frozen=True)
class Run:
    """A run of a pipeline and the folders of what it makes."""

    name: str
    section: str
    """Of the params file: ``supervised``, ``rounds``, …"""
    teacher: str | None
    model: Path
    predictions: Path
    """A prediction table a split."""
    selection: Path | None
    """None for runs without a teacher."""
    evaluation: Path

    @property
    def is_adopted(self) -> bool:
        """Whether its model comes from elsewhere."""
        return self.section in ADOPTED


class Project:
    """One pipeline of a project."""

    def __init__(self, root: Path, params_path: Path, values: Mapping[str, Any]) -> None:
        self.root, self.params_path, self.values = root, params_path, dict(values)
        head = {name: values[name] for name in PipelineConfig.model_fields if name in values}
        self.config = parse_section(head, PipelineConfig, f"{params_path}:")

    @classmethod
    def open(cls, root: Path = Path(), pipeline: str | None = None) -> Self:
        """A pipeline by its name; None is the one of the root's params.yaml.

        Raises UserError if there is no such pipeline, if its parameters do not say what a pipeline has to say, or if
        they name another one than their folder does.
        """
        main = root / PARAMS
        if pipeline is None:
            return cls(root, main, load_params(main))
        names = _in_folders(root)
        if pipeline in names:
            params_path = root / PIPELINES / pipeline / PARAMS
            values = load_params(params_path)
            if values.get("pipeline") != pipeline:
                raise UserError(
                    f"{params_path}: pipeline: is '{values.get('pipeline')}' in the folder of '{pipeline}'; its stages "
                    "would work on that one, so call both the same"
                )
            return cls(root, params_path, values)
        values = load_params(main)
        if values.get("pipeline") != pipeline:
            raise UserError(
                f"there is no pipeline '{pipeline}'; {did_you_mean(pipeline, [str(values.get('pipeline')), *names])}"
            )
        return cls(root, main, values)

    @property
    def name(self) -> str:
        """The pipeline's name."""
        return self.config.pipeline

    @cached_property
    def seed(self) -> int:
        """The one seed that everything random derives from."""
        return load_seed(self.values, self.params_path)

    def section(self, name: str, model: type[SectionT]) -> SectionT:
        """A section of the parameters. Raises UserError naming the first mistake in it."""
        return parse_section(self.values.get(name), model, f"{self.params_path}: {name}")

    @property
    def hardware(self) -> HardwareConfig:
        """This machine, with ``SELFTRAIN_HARDWARE`` laid over the parameters (``engine=ray device=cuda``).

        Raises UserError naming the first mistake in either.
        """
        here = f"{HARDWARE_HERE}, laid over {self.params_path}: hardware"
        where = f"{self.params_path}: hardware"
        return parse_overlaid(self.values.get("hardware") or {}, hardware_here(), HardwareConfig, where, here)

    def train_config(self, run: str) -> TrainConfig:
        """A run's training parameters."""
        return train_config(self.values, run, str(self.params_path))

    def select_config(self, round_: str) -> SelectConfig:
        """A round's selection parameters."""
        return select_config(self.values, round_, str(self.params_path))

    def adopted_config(self, run: str) -> AdoptedConfig:
        """What a run is adopted from."""
        return adopted_config(self.values, run, str(self.params_path))

    @cached_property
    def runs(self) -> dict[str, Run]:
        """The runs by name, in the file's order."""
        path = str(self.params_path)
        found = {}
        for name, section in all_runs(self.values, path).items():
            teacher = None if section in ADOPTED else run_entry(self.values, name, path)[0].teacher
            selection = self.selections / name if section == "rounds" else None
            found[name] = Run(
                name,
                section,
                teacher,
                self.models / name,
                self.predictions / name,
                selection,
                self.evaluations / name,
            )
        return found

    def run(self, name: str) -> Run:
        """A run by name. Raises UserError naming those there are."""
        if name not in self.runs:
            raise UserError(f"{self.params_path}: there is no run '{name}'; {did_you_mean(name, list(self.runs))}")
        return self.runs[name]

    @property
    def rounds(self) -> list[Run]:
        """The runs that are trained on pseudo-labels."""
        return [run for run in self.runs.values() if run.section == "rounds"]

    def teachers_of(self, round_: str) -> list[Run]:
        """A round's teacher, that one's teacher, and so on to the first."""
        chain = chain_of(self.run(round_).name, {run.name: run.teacher for run in self.runs.values()})
        return [self.run(name) for name in chain[1:]]

    @property
    def corpus(self) -> Path:
        """The folder of images and manifest."""
        return self.root / self.config.corpus

    @property
    def corrections(self) -> Path:
        """What people said of single images."""
        return self.root / self.config.corrections

    @property
    def code(self) -> Path:
        """What each result depends on of the program."""
        return self.root / "data" / "code" / self.name

    @property
    def models(self) -> Path:
        """A timm model folder a run, and ``best``."""
        return self.root / "models" / self.name

    @property
    def best(self) -> Path:
        """The best run's model, with its card."""
        return self.models / "best"

    @property
    def predictions(self) -> Path:
        """A folder of prediction tables a run."""
        return self.root / "predictions" / self.name

    @property
    def selections(self) -> Path:
        """A selection a round."""
        return self.root / "selections" / self.name

    @property
    def evaluations(self) -> Path:
        """A folder of figures a run."""
        return self.root / "evaluation" / self.name

    @property
    def review(self) -> Path:
        """Lists of what to look at first."""
        return self.root / "review" / self.name

    @property
    def asked(self) -> Path:
        """What `selftrain ask` asked last."""
        return self.root / WORK / "asked" / f"{self.name}.parquet"

    @property
    def report(self) -> Path:
        """The page."""
        return self.root / "reports" / self.name

    @property
    def robustness(self) -> Path:
        """A folder of robustness tables a tested model."""
        return self.root / "robustness" / self.name

    @property
    def robustness_figures(self) -> Path:
        """mCE, mFR, and their page."""
        return self.root / "robustness_figures" / self.name

    @property
    def footprint(self) -> Path:
        """What the models cost."""
        return self.root / "footprint" / self.name

    @property
    def replication(self) -> Path:
        """The small-scale replication's tables."""
        return self.root / "replication" / self.name / "tables.md"

    @property
    def outputs(self) -> tuple[Path, ...]:
        """What stages write to, of this pipeline and its neighbours."""
        of_pipelines = (
            self.models,
            self.predictions,
            self.selections,
            self.evaluations,
            self.review,
            self.report,
            self.robustness,
            self.robustness_figures,
            self.footprint,
            self.replication.parent,
        )
        return self.root / "data", *(folder.parent for folder in of_pipelines)

    def tested(self, name: str) -> Path:
        """A model that is put through the robustness suites. Raises UserError naming those there are."""
        if name not in self.config.tested:
            known = list(self.config.tested)
            raise UserError(f"{self.params_path}: tested: there is no '{name}'; {did_you_mean(name, known)}")
        return self.root / "models" / self.config.tested[name]


def all_pipelines(root: Path = Path()) -> list[str]:
    """The names of a project's pipelines, the root's first."""
    return [str(load_params(root / PARAMS).get("pipeline")), *_in_folders(root)]


def _in_folders(root: Path) -> list[str]:
    return [path.parent.name for path in sorted((root / PIPELINES).glob(f"*/{PARAMS}"))]
