"""The stage ``train``: one run, from its parameters and tables to a timm model folder."""

import contextlib
import importlib
import importlib.util
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from selftrain.algorithms.algorithm import Algorithm
from selftrain.config import did_you_mean, parse_section
from selftrain.corpus.manifest import manifest_digest
from selftrain.errors import UserError
from selftrain.files import read_json, write_json
from selftrain.hardware import HardwareConfig, processes, resolve
from selftrain.predictions.selection import selection_digest
from selftrain.predictions.table import made_from_digest
from selftrain.stage import WORK
from selftrain.tracking import Tracker
from selftrain.training.batches import Share, TrainingBatches
from selftrain.training.config import TrainConfig
from selftrain.training.distributed import process_group, rank_and_world, wait_for_all
from selftrain.training.loading import load_index
from selftrain.training.loop import Loop
from selftrain.training.models import create_model, export_model
from selftrain.training.provenance import fingerprint, git_commit
from selftrain.training.pseudo_labels import PseudoLabels, load_pseudo_labels
from selftrain.training.validation import Validation


@dataclass(frozen=True)
class Inputs:
    """What a run reads and where it writes."""

    corpus: Path
    out: Path
    selection: Path | None = None
    """The round's selection; None for supervised runs."""
    predictions: Path | None = None
    """The teacher's prediction table of the unlabeled split."""
    teacher: Path | None = None
    """The teacher's model folder."""


def train(
    run: str,
    pipeline: str,
    config: TrainConfig,
    hardware: HardwareConfig,
    seed: int,
    inputs: Inputs,
    restart: list[str],
) -> None:
    """Train a run and write its model folder with ``run.json``; go on where a killed process stopped.

    ``restart`` is the command line that starts this very training, for torchrun to run once a process.
    """
    wanted = processes(hardware)
    rank, world_size, local_rank, local_processes = rank_and_world()
    if world_size == 1 and wanted > 1:
        _restart_in_processes(wanted, restart)
        return
    machine = resolve(hardware, local_rank, local_processes)
    with process_group(machine.device):
        _train(run, pipeline, config, hardware, seed, inputs, Share(rank, world_size), machine)
        wait_for_all()


def load_algorithm(config: TrainConfig) -> tuple[type[Algorithm], Any]:
    """An algorithm's class, found by its module's name, and its checked parameters."""
    name = config.algorithm.name
    if importlib.util.find_spec(f"selftrain.algorithms.{name}") is None:
        folder = Path(__file__).parent.parent / "algorithms"
        known = sorted({path.stem for path in folder.glob("*.py")} - {"__init__", "algorithm", "losses"})
        raise UserError(f"train.algorithm.name: there is no algorithm '{name}'; {did_you_mean(name, known)}")
    module = importlib.import_module(f"selftrain.algorithms.{name}")
    classes = [
        value
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, Algorithm) and value.__module__ == module.__name__
    ]
    if len(classes) != 1:
        raise UserError(f"train.algorithm.name: '{name}' is not an algorithm; its file holds {len(classes)} of them")
    return classes[0], parse_section(config.algorithm.parameters, classes[0].Config, f"train.algorithm ({name})")


def _train(
    run: str,
    pipeline: str,
    config: TrainConfig,
    hardware: HardwareConfig,
    seed: int,
    inputs: Inputs,
    share: Share,
    machine: Any,
) -> None:
    algorithm_class, algorithm_config = load_algorithm(config)
    _check(run, config, algorithm_class, inputs, share)
    classes = read_json(inputs.corpus / "classes.json", "dvc repro ingest")
    labeled = load_index(inputs.corpus / "labeled")
    pseudo_labels = _pseudo_labels(algorithm_class, inputs)
    torch.manual_seed(seed)
    student = create_model(
        config.model,
        len(classes),
        pretrained=config.pretrained,
        dropout=config.noise.dropout,
        stochastic_depth=config.noise.stochastic_depth,
    )
    algorithm = algorithm_class(student, algorithm_config)
    data = _data_digests(inputs)
    identity = fingerprint(config.model_dump(mode="json"), seed, data)
    folder = WORK / "checkpoints" / run / identity
    loop = Loop(algorithm, config, config.total_steps(len(labeled)), seed, machine, share)
    batches = TrainingBatches(config, algorithm.views, seed, share, labeled, pseudo_labels)
    validation = Validation(load_index(inputs.corpus / "validation"), config, machine, share)
    with _tracked(run, pipeline, config, seed, inputs, data, folder, share) as curves:
        loop.run(batches, validation, curves, folder, hardware.checkpoint_seconds)
        if share.rank == 0:
            provenance = {"run": run, "pipeline": pipeline, "mlflow_run_id": curves.wait_for_run()} | data
            _export(loop, config, seed, inputs, classes, provenance)
    if share.rank == 0:
        _forget_other_checkpoints(folder)


def _check(run: str, config: TrainConfig, algorithm: type[Algorithm], inputs: Inputs, share: Share) -> None:
    needs_pool = "unlabeled" in algorithm.views
    if needs_pool and config.unlabeled_ratio == 0:
        raise UserError(f"train.unlabeled_ratio of '{run}' is 0; {config.algorithm.name} needs pseudo-labeled images")
    if needs_pool and (inputs.selection is None or inputs.predictions is None):
        raise UserError(f"'{run}': {config.algorithm.name} needs --selection and --predictions")
    if not needs_pool and config.unlabeled_ratio:
        raise UserError(
            f"train.unlabeled_ratio of '{run}': {config.algorithm.name} uses no unlabeled images; set it to 0"
        )
    if config.batch_size % share.world_size:
        raise UserError(
            f"train.batch_size of '{run}': {config.batch_size} does not divide by {share.world_size} processes"
        )


def _pseudo_labels(algorithm: type[Algorithm], inputs: Inputs) -> PseudoLabels | None:
    if "unlabeled" not in algorithm.views:
        return None
    assert inputs.selection is not None and inputs.predictions is not None
    return load_pseudo_labels(inputs.corpus / "unlabeled", inputs.selection, inputs.predictions, WORK / "scratch")


def _data_digests(inputs: Inputs) -> dict[str, str]:
    digests = {split: manifest_digest(inputs.corpus / split) for split in ("labeled", "validation")}
    if inputs.selection is not None:
        digests["selection"] = selection_digest(inputs.selection)
    if inputs.predictions is not None:
        digests["predictions"] = made_from_digest(inputs.predictions)
    return digests


class NoCurves:
    """The curves of every process but the first."""

    def log(self, step: int, metrics: dict[str, float]) -> None:
        """Nothing."""

    def flush(self) -> None:
        """Nothing."""

    def wait_for_run(self) -> str:
        """Nobody asks."""
        raise AssertionError


@contextlib.contextmanager
def _tracked(
    run: str,
    pipeline: str,
    config: TrainConfig,
    seed: int,
    inputs: Inputs,
    data: dict[str, str],
    folder: Path,
    share: Share,
) -> Any:
    """The run's curves in MLflow: continued where there is a checkpoint, ended as what became of it."""
    if share.rank != 0:
        yield NoCurves()
        return
    teacher = {} if inputs.teacher is None else read_json(inputs.teacher / "run.json", "dvc repro")
    tags = {
        "pipeline": pipeline,
        "round": run,
        "algorithm": config.algorithm.name,
        "teacher": teacher.get("run", ""),
        "teacher_run_id": teacher.get("mlflow_run_id", ""),
        "mlflow.source.git.commit": git_commit(),
    }
    contexts = {"labeled": "training", "validation": "validation", "selection": "pseudo-labels"}
    paths = {
        "labeled": inputs.corpus / "labeled",
        "validation": inputs.corpus / "validation",
        "selection": inputs.selection,
    }
    datasets = {contexts[name]: (str(paths[name]), data[name]) for name in contexts if name in data}
    remembered = folder / "mlflow_run_id"
    run_id = remembered.read_text().strip() if remembered.exists() else None
    params = _flat(config.model_dump(mode="json")) | {"seed": str(seed)}
    folder.mkdir(parents=True, exist_ok=True)
    tracker = Tracker(run, run_id, tags, params, datasets, on_run=remembered.write_text)
    try:
        yield tracker
    except BaseException as error:
        tracker.finish("FAILED" if isinstance(error, Exception) else "KILLED")
        raise
    tracker.finish("FINISHED")


def _export(
    loop: Loop, config: TrainConfig, seed: int, inputs: Inputs, classes: list[str], provenance: dict[str, Any]
) -> None:
    """Write the best weights as a timm model folder, whole or not at all."""
    assert loop.best_score is not None
    model = loop.evaluated_model()
    model.load_state_dict(loop.best_weights)
    staged = WORK / "scratch" / inputs.out.name
    shutil.rmtree(staged, ignore_errors=True)
    export_model(model, staged, classes=classes, image_size=config.image_size, crop_fraction=config.crop_fraction)
    teacher = {} if inputs.teacher is None else read_json(inputs.teacher / "run.json", "dvc repro")
    write_json(
        staged / "run.json",
        provenance
        | {
            "algorithm": config.algorithm.name,
            "model": config.model,
            "parameters": sum(parameter.numel() for parameter in model.parameters()),
            "teacher": teacher.get("run"),
            "teacher_mlflow_run_id": teacher.get("mlflow_run_id"),
            "git_commit": git_commit(),
            "seed": seed,
            "steps": loop.total_steps,
            "best_step": loop.best_step,
            "validation_accuracy": loop.best_score.accuracy,
            "train_seconds": round(loop.seconds, 1),
        },
    )
    inputs.out.parent.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(inputs.out, ignore_errors=True)
    staged.rename(inputs.out)


def _forget_other_checkpoints(folder: Path) -> None:
    """Remove checkpoints of the run's earlier versions; its own stay until there is a next one."""
    for other in folder.parent.iterdir():
        if other != folder:
            shutil.rmtree(other)


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested parameters as ``a.b`` → text, as MLflow's comparison page wants them."""
    flat: dict[str, str] = {}
    for key, value in values.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": str(value)}
    return flat


def _restart_in_processes(wanted: int, command: list[str]) -> None:
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={wanted}"]
    code = subprocess.run([*torchrun, *command], check=False).returncode
    if code:
        raise SystemExit(code)
