"""All of a pipeline's parameters at once: the sections there are, and a check of each before hours are spent."""

from selftrain.corpus.layout import check_sources
from selftrain.evaluation.robustness.shift import ShiftConfig
from selftrain.params.browse import BrowseConfig
from selftrain.params.digits import DigitsConfig
from selftrain.params.evaluate import EvaluateConfig
from selftrain.params.ingest import IngestConfig
from selftrain.params.pipeline import PipelineConfig
from selftrain.params.predict import PredictConfig
from selftrain.params.review import ReviewConfig
from selftrain.params.robustness import RobustnessConfig
from selftrain.params.runs import RUN_SECTIONS, chain_of
from selftrain.params.select import SelectConfig
from selftrain.params.train import TrainConfig
from selftrain.plumbing.by_name import find_module
from selftrain.plumbing.errors import UserError
from selftrain.plumbing.hardware import HardwareConfig, missing_device
from selftrain.plumbing.sections import Section, did_you_mean
from selftrain.project import PARAMS, PIPELINES, Project
from selftrain.references import check_files, check_references
from selftrain.tables.corpus import CLASSES, classes_of
from selftrain.tables.corrections import check_corrections, read_corrections
from selftrain.workspace import check_workspace, made_by_stages

SECTIONS: dict[str, type[Section]] = {
    "digits": DigitsConfig,
    "ingest": IngestConfig,
    "predict": PredictConfig,
    "evaluate": EvaluateConfig,
    "review": ReviewConfig,
    "robustness": RobustnessConfig,
    "shift": ShiftConfig,
    "browse": BrowseConfig,
    "hardware": HardwareConfig,
}
# `train` and `select` hold defaults that only make sense with a run's own laid over them.
OTHERS = ("seed", "train", "select", *PipelineConfig.model_fields, *RUN_SECTIONS)


def check_project(project: Project, paths: bool = True) -> None:
    """Raises UserError for the first thing wrong with a pipeline: sections, types, algorithms, teachers, corrections.

    ``paths`` says whether the folders that it names have to be there.

    Names of models and optimizers and the algorithms' own parameters come last: they need PyTorch, some seconds.
    """
    params, path = project.values, str(project.params_path)
    for name in params:
        if name not in (*SECTIONS, *OTHERS):
            raise UserError(f"{path}: {name}: unknown section; {did_you_mean(name, [*SECTIONS, *OTHERS])}")
    assert project.seed >= 0
    for name, model in SECTIONS.items():
        if name in params:
            project.section(name, model)
    assert project.hardware is not None  # what the machine's own environment says is checked too
    project.section("select", SelectConfig)
    _check_names(project)
    configs = _train_configs(project)
    teachers = {run.name: run.teacher for run in project.runs.values() if run.teacher is not None}
    for run in teachers:
        _check_chain(run, teachers, f"{path}: rounds.{run}.teacher")
        _check_start(project, run, teachers[run])
    _check_lists(project)
    notes = check_references(project)
    if paths:
        notes += check_workspace(project)
        for note in notes:
            print(note)
        check_files(project)
        _check_sources(project)
        _check_corrections(project)
    from selftrain.training.check import check_run, check_takes_weights

    if paths and (missing := missing_device(project.hardware.device)):
        print(f"note: {missing}")
    for where, (config, is_round) in configs.items():
        check_run(config, is_round, where, project.hardware)
    for round_ in (run.name for run in project.rounds):
        if project.select_config(round_).weight != "one":
            check_takes_weights(project.train_config(round_), f"{path}: rounds.{round_}.select.weight")


def _check_names(project: Project) -> None:
    """What is found by the name of its file is there."""
    where, robustness = f"{project.params_path}: robustness", project.section("robustness", RobustnessConfig)
    for suite in robustness.suites:
        find_module("evaluation.robustness.suites", suite, f"{where}.suites")
    find_module("images.policies", robustness.randaugment_policy, f"{where}.randaugment_policy")


def _train_configs(project: Project) -> dict[str, tuple[TrainConfig, bool]]:
    """By their places in the file, the parameters of what is trained, and whether it is a round."""
    found = {}
    for run in project.runs.values():
        where = f"{project.params_path}: {run.section}.{run.name}"
        if run.is_adopted:
            project.adopted_config(run.name)
            continue
        config = project.train_config(run.name)
        found[where] = (config, run.section == "rounds")
        if run.section != "rounds":
            for name in ("teacher", "select"):
                if name in (project.values[run.section][run.name] or {}):
                    raise UserError(f"{where}.{name}: only rounds have one; put the run under `rounds`")
        if run.section != "leaky" and config.resplit is not None and "test" in config.resplit.splits:
            raise UserError(f"{where}.train.resplit: a run that reads test images stands under `leaky`")
        if run.section == "rounds" and run.teacher not in project.runs:
            hint = did_you_mean(str(run.teacher), [name for name in project.runs if name != run.name])
            raise UserError(f"{where}.teacher: there is no other run '{run.teacher}'; {hint}")
    return found


def _check_start(project: Project, run: str, teacher: str) -> None:
    """A student that starts from its teacher's weights has its architecture."""
    if project.run(teacher).is_adopted:
        return
    config = project.train_config(run)
    if config.init == "teacher" and config.model != (other := project.train_config(teacher).model):
        where = f"{project.params_path}: rounds.{run}.train.init"
        raise UserError(f"{where}: {teacher} is a {other} and cannot start a {config.model}; use `init: scratch`")


def _check_sources(project: Project) -> None:
    """What lies in the user's own image folders is what `ingest` takes."""
    if not project.config.stages.ingest:
        return
    config = project.section("ingest", IngestConfig)
    if config.root not in made_by_stages(project):
        check_sources(project.root / config.root, config, project.seed)


def _check_corrections(project: Project) -> None:
    if project.corrections.exists() and (project.corpus / CLASSES).exists():
        table, classes = read_corrections(project.corrections), classes_of(project.corpus)
        check_corrections(table, project.corrections, classes, project.corpus / "unlabeled")


def _check_lists(project: Project) -> None:
    """``runs`` are the runs, and a stage that makes something of this pipeline's own names it."""
    where, listed = f"{project.params_path}: runs", project.config.runs
    for name in listed:
        if name not in project.runs:
            known = did_you_mean(name, list(project.runs))
            raise UserError(f"{where}: there is no run '{name}'; take it out of the list, or {known}")
    for name in project.runs:
        if name not in listed:
            raise UserError(f"{where}: '{name}' is a run but not in the list; add it")
    if project.params_path == project.root / PARAMS and (project.root / PIPELINES / project.name / PARAMS).exists():
        folder = PIPELINES / project.name
        raise UserError(f"{project.params_path}: pipeline: {folder} is a pipeline of this name too; rename one of them")
    stages = project.config.stages
    if bool(stages.code) == bool(stages.installed_code):
        raise UserError(f"{project.params_path}: stages: give either `code` or `installed_code`")
    for stage in ("results", "robustness_figures", "footprint", "replication"):
        if (named := getattr(stages, stage)) not in ([], [project.name]):
            raise UserError(f"{project.params_path}: stages.{stage}: expected [] or [{project.name}], found {named}")
    if stages.ingest not in ([], [project.config.corpus]):
        raise UserError(f"{project.params_path}: stages.ingest: expected [] or [{project.config.corpus}]")


def _check_chain(run: str, teachers: dict[str, str], where: str) -> None:
    chain = chain_of(run, teachers)
    if (first := teachers.get(chain[-1])) is not None:
        raise UserError(
            f"{where}: {' ← '.join([*chain, first])} goes in a circle; the first teacher is a supervised run"
        )
