"""All of params.yaml at once: the sections there are, and a check of every one before hours are spent."""

from pathlib import Path

from selftrain.config import Section, did_you_mean, load_params, load_seed, parse_section
from selftrain.corpus.config import DigitsConfig, IngestConfig
from selftrain.errors import UserError
from selftrain.evaluation.config import EvaluateConfig
from selftrain.hardware import HardwareConfig
from selftrain.inspection.config import BrowseConfig
from selftrain.predictions.config import select_config
from selftrain.training.config import RUN_SECTIONS, run_entry, train_config

SECTIONS: dict[str, type[Section]] = {
    "digits": DigitsConfig,
    "ingest": IngestConfig,
    "evaluate": EvaluateConfig,
    "browse": BrowseConfig,
    "hardware": HardwareConfig,
}
# `train` and `select` hold defaults that only make sense with a run's own laid over them.
OTHERS = ("seed", "train", "select", *RUN_SECTIONS)


def check_params(path: Path) -> None:
    """Raises UserError for the first thing wrong in a params file: sections, types, names of teachers."""
    params = load_params(path)
    for name in params:
        if name not in (*SECTIONS, *OTHERS):
            raise UserError(f"{path}: {name}: unknown section; {did_you_mean(name, [*SECTIONS, *OTHERS])}")
    load_seed(params, path)
    for name, model in SECTIONS.items():
        if name in params:
            parse_section(params[name], model, f"{path}: {name}")
    runs = [(section, run) for section in RUN_SECTIONS for run in params.get(section) or {}]
    known = [run for _, run in runs]
    for section, run in runs:
        train_config(params, run, str(path))
        entry, where = run_entry(params, run, str(path))
        if section == "rounds":
            select_config(params, run, str(path))
            if entry.teacher not in known or entry.teacher == run:
                hint = did_you_mean(str(entry.teacher), known)
                raise UserError(f"{where}.teacher: there is no other run '{entry.teacher}'; {hint}")
