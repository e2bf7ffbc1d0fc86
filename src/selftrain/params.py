"""All of params.yaml at once: the sections there are, and a check of every one before hours are spent."""

from pathlib import Path

from selftrain.config import Section, did_you_mean, load_params, load_seed, parse_section
from selftrain.corpus.config import DigitsConfig, IngestConfig
from selftrain.errors import UserError
from selftrain.evaluation.config import EvaluateConfig
from selftrain.evaluation.review_config import ReviewConfig
from selftrain.evaluation.robustness.config import RobustnessConfig
from selftrain.evaluation.robustness.shift import ShiftConfig
from selftrain.hardware import HardwareConfig
from selftrain.inspection.config import BrowseConfig
from selftrain.predictions.config import SelectConfig, select_config
from selftrain.predictions.predict_config import PredictConfig
from selftrain.training.adopted_config import adopted_config
from selftrain.training.config import ADOPTED, RUN_SECTIONS, TrainConfig, all_runs, run_entry, train_config

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
DIGITS = "data/digits"
"""Made by a stage, so it need not be there yet."""
# `train` and `select` hold defaults that only make sense with a run's own laid over them.
OTHERS = ("seed", "train", "select", "runs", *RUN_SECTIONS)


def check_params(path: Path, paths: bool = True) -> None:
    """Raises UserError for the first thing wrong in a params file: sections, types, algorithms, teachers.

    ``paths`` says whether the folders that it names have to be there.

    Names of models and optimizers and the algorithms' own parameters come last: they need PyTorch, some seconds.
    """
    params = load_params(path)
    for name in params:
        if name not in (*SECTIONS, *OTHERS):
            raise UserError(f"{path}: {name}: unknown section; {did_you_mean(name, [*SECTIONS, *OTHERS])}")
    load_seed(params, path)
    for name, model in SECTIONS.items():
        if name in params:
            parse_section(params[name], model, f"{path}: {name}")
    parse_section(params.get("select"), SelectConfig, f"{path}: select")
    teachers: dict[str, str] = {}
    configs: dict[str, tuple[TrainConfig, bool]] = {}
    runs = all_runs(params, str(path))
    for run, section in runs.items():
        if section in ADOPTED:
            adopted_config(params, run, str(path))
            continue
        config = train_config(params, run, str(path))
        entry, where = run_entry(params, run, str(path))
        if section == "rounds":
            select_config(params, run, str(path))
            if entry.teacher not in runs:
                hint = did_you_mean(str(entry.teacher), [name for name in runs if name != run])
                raise UserError(f"{where}.teacher: there is no other run '{entry.teacher}'; {hint}")
            teachers[run] = entry.teacher
        configs[where] = (config, section == "rounds")
    _check_list(params.get("runs"), runs, f"{path}: runs")
    for run in teachers:
        _check_chain(run, teachers, f"{path}: rounds.{run}.teacher")
    for run, teacher in teachers.items():
        if runs[teacher] in ADOPTED:
            continue
        own = train_config(params, run, str(path))
        if own.init == "teacher" and own.model != (other := train_config(params, teacher, str(path)).model):
            where = f"{path}: rounds.{run}.train.init"
            raise UserError(f"{where}: {teacher} is a {other} and cannot start a {own.model}; use `init: scratch`")
    root = (params.get("ingest") or {}).get("root")
    made_by_stage = root == DIGITS or "shift" in params
    if paths and root is not None and not made_by_stage and not Path(root).is_dir():
        raise UserError(f"{path}: ingest.root: there is no folder {root}")
    from selftrain.training.check import check_run

    for where, (config, is_round) in configs.items():
        check_run(config, is_round, where)


def _check_chain(run: str, teachers: dict[str, str], where: str) -> None:
    chain = [run]
    while chain[-1] in teachers:
        chain.append(teachers[chain[-1]])
        if chain[-1] in chain[:-1]:
            raise UserError(f"{where}: {' ← '.join(chain)} goes in a circle; the first teacher is a supervised run")


def _check_list(listed: object, runs: dict[str, str], where: str) -> None:
    """A pipeline's ``runs`` are its runs, or, where it has none of its own, others' models by the name they get."""
    if listed is None:
        return
    if not runs:
        if not isinstance(listed, dict) or not all(isinstance(item, str) for pair in listed.items() for item in pair):
            raise UserError(f"{where}: expected a mapping of names to folders under models/, found {listed!r}")
        return
    if not isinstance(listed, list) or not all(isinstance(name, str) for name in listed):
        raise UserError(f"{where}: expected a list of runs, found {listed!r}")
    for name in listed:
        if name not in runs:
            raise UserError(f"{where}: there is no run '{name}'; {did_you_mean(name, list(runs))}")
    for name in runs:
        if name not in listed:
            raise UserError(f"{where}: '{name}' is a run but not in the list; add it")
