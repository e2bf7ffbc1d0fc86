"""The runs of a params file: their names, sections and entries."""

from collections.abc import Mapping
from typing import Any

from selftrain.params.train import MAIN_PHASE, RUN_NAME, TrainConfig, check_networks, inherited, phases, without
from selftrain.plumbing.errors import UserError
from selftrain.plumbing.sections import Section, did_you_mean, parse_overlaid, parse_section


class RunConfig(Section):
    """A run's entry under ``supervised`` or ``rounds``."""

    teacher: str | None = None
    select: dict[str, Any] = {}
    train: dict[str, Any] = {}


ADOPTED = ("teachers", "ensembles", "pretrained")
"""Runs that are taken as they are, see ``params/adopted.py``: three sections for the same, since DVC has to be told on
which folders a stage depends: one, two or none."""


RUN_SECTIONS = (*ADOPTED, "supervised", "leaky", "rounds")
"""``leaky`` are supervised runs whose ``resplit`` may hold test images: DVC has to be told that they read them."""


RESERVED = (
    "best", "robustness", "out_of_domain", "asked", "embeddings", "id", "key", "filepath", "tags", "metadata", "split",
    "source", "truth", "corrected", "history", "pair", "repeats", "uniqueness", "hardness", "mistakenness",
)  # fmt: skip
"""Names of folders and FiftyOne fields that are something else."""


def all_runs(params: Mapping[str, Any], params_path: str) -> dict[str, str]:
    """Every run's name and its section, in the file's order. Raises UserError for what cannot be a run."""
    runs: dict[str, str] = {}
    for section in RUN_SECTIONS:
        entries = params.get(section) or {}
        if not isinstance(entries, Mapping):
            raise UserError(f"{params_path}: {section}: expected a mapping of runs, found {entries!r}")
        for name in entries:
            if not isinstance(name, str) or not RUN_NAME.fullmatch(name) or name in RESERVED:
                hint = "it means something else" if name in RESERVED else "use letters, digits and _, a letter first"
                raise UserError(f"{params_path}: {section}: {name!r} cannot name a run; {hint}")
            if name in runs:
                raise UserError(f"{params_path}: '{name}' is a run in both `{runs[name]}` and `{section}`; rename one")
            runs[name] = section
    return runs


def chain_of(run: str, teachers: Mapping[str, str | None]) -> list[str]:
    """A run, its teacher, that one's teacher and so on, each once; ``teachers`` by the run that they taught."""
    chain = [run]
    while (teacher := teachers.get(chain[-1])) is not None and teacher not in chain:
        chain.append(teacher)
    return chain


def run_entry(params: Mapping[str, Any], run: str, params_path: str) -> tuple[RunConfig, str]:
    """A run's own entry and its place in the params file. Raises UserError naming the runs there are."""
    runs = all_runs(params, params_path)
    if run not in runs:
        raise UserError(f"{params_path}: there is no run '{run}'; {did_you_mean(run, list(runs))}")
    where = f"{params_path}: {runs[run]}.{run}"
    return parse_section(params[runs[run]][run], RunConfig, where), where


def train_config(params: dict[str, Any], run: str, params_path: str) -> TrainConfig:
    """The run's training parameters: ``train``, overlaid with the run's own ``train``."""
    entry, where = run_entry(params, run, params_path)
    defaults = params.get("train")
    if isinstance(defaults, Mapping) and {"steps", "epochs"} & entry.train.keys():
        # A run that says how long it is says it all.
        defaults = without(dict(defaults), "steps", "epochs")
    if isinstance(defaults, Mapping):
        defaults = inherited(dict(defaults), entry.train)
    config = parse_overlaid(defaults, entry.train, TrainConfig, f"{params_path}: train", f"{where}.train")
    for phase, each in phases(config, f"{where}.train").items():
        check_networks(each, f"{where}.train" if phase == MAIN_PHASE else f"{where}.train.then.{phase}")
    return config
