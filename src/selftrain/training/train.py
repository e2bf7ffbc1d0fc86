"""The stage ``train``: one run, from its parameters and tables to a timm model folder."""

import shutil
from pathlib import Path

from selftrain.learning.algorithm import find_algorithm
from selftrain.params.train import TrainConfig, phases
from selftrain.plumbing.files import remove_temporary_files
from selftrain.plumbing.hardware import resolve
from selftrain.plumbing.locks import WORK
from selftrain.plumbing.room import check_room
from selftrain.plumbing.tracker import waiting
from selftrain.tables.corpus import classes_of
from selftrain.training.batches import Process
from selftrain.training.check import check_fit, check_ratio
from selftrain.training.checkpoint import KEPT_CHECKPOINTS
from selftrain.training.distributed import process_group, rank_and_world, wait_for_all
from selftrain.training.launch import in_processes, wants_processes
from selftrain.training.phase import make_phase
from selftrain.training.provenance import fingerprint
from selftrain.training.pseudo_labels import PseudoLabels, load_pseudo_labels
from selftrain.training.result import EndedPhase, export, write_weights
from selftrain.training.run import Training
from selftrain.training.tracked import PhaseCurves, tracked


def train(training: Training, restart: list[str]) -> None:
    """Train a run and write its model folder; go on where a killed process stopped.

    ``restart`` is the command line that starts this very training, for torchrun to run once a process.
    """
    if wants_processes(training.hardware):
        in_processes(training.hardware, restart)
        return
    rank, world_size = rank_and_world()
    process, machine = Process(rank, world_size), resolve(training.hardware)
    with process_group(machine.device):
        planned = phases(training.config)
        tables = _tables_read(training, planned, world_size)
        classes = classes_of(training.corpus)
        pseudo_labels = _pseudo_labels(training, tables)
        data = training.data_digests("labeled_predictions" in tables)
        config, arithmetic = training.config.model_dump(mode="json"), [machine.bf16, machine.compile]
        version = fingerprint(config, list(planned.values()), training.seed, data, arithmetic)
        checkpoints = WORK / "checkpoints" / training.pipeline / (training.place or training.name) / version
        if rank == 0:
            for name in planned:
                remove_temporary_files(checkpoints / name)
        with tracked(training, data, checkpoints, rank) as curves:
            weights = training.teacher if training.config.init == "teacher" else None
            ended: list[EndedPhase] = []
            for number, (name, phase) in enumerate(planned.items()):
                made = make_phase(training, phase, number, weights, pseudo_labels, classes, process, machine)
                of_phase = PhaseCurves(curves, name if number else "", sum(before.steps for before in ended))
                title = f"train {training.name}: {name}" if number else f"train {training.name}"
                if rank == 0:
                    needed = (KEPT_CHECKPOINTS + 1) * made.loop.checkpoint_bytes()
                    check_room(checkpoints, needed, f"{KEPT_CHECKPOINTS} checkpoints of {training.name} and a third")
                    check_room(training.out.parent, 0, "models")
                seconds = training.hardware.checkpoint_seconds
                made.loop.run(made.batches, made.validation, of_phase, checkpoints / name, seconds, title)
                weights = checkpoints / name / "result"
                result, temperature = made.result(calibrated=number == len(planned) - 1)
                if rank == 0:
                    write_weights(result, phase, classes, weights)
                wait_for_all()
                ended.append(EndedPhase(name, made.loop, made.head, temperature))
                del made  # its network and optimizer would lie in memory beside the next phase's
            if rank == 0:
                export(training, checkpoints, ended, data, curves.wait_for_run())
        if rank == 0:
            _remove_others(checkpoints)
        wait_for_all()


def _tables_read(training: Training, planned: dict[str, TrainConfig], world_size: int) -> set[str]:
    """Of ``pool``, ``predictions`` and ``labeled_predictions``, what the phases read.

    Raises UserError for a phase that cannot be trained like that.
    """
    found = set()
    for phase in planned.values():
        algorithm, parameters = find_algorithm(phase.algorithm.name, phase.algorithm.parameters)
        needs = algorithm.needs(parameters)
        check_fit(phase, algorithm, needs, f"'{training.name}'")
        check_ratio(phase, needs, f"'{training.name}'")
        training.check(phase, needs, world_size)
        if needs.reads_table("labeled"):
            found.add("labeled_predictions")
        if phase.pool == "selection" and "unlabeled" in needs.views:
            found.add("pool")
        if phase.pool == "selection" and needs.reads_table("unlabeled"):
            found.add("predictions")
    return found


def _pseudo_labels(training: Training, tables: set[str]) -> PseudoLabels | None:
    if "pool" not in tables:
        return None
    assert training.selection is not None and training.predictions is not None
    # A row of log-probabilities for each image can be larger than the images; only what reads them gets them.
    return load_pseudo_labels(
        training.corpus / "unlabeled",
        training.selection,
        training.predictions,
        with_soft_labels="predictions" in tables,
    )


def _remove_others(checkpoints: Path) -> None:
    """Remove a run's earlier versions. The last one stays, so that a kill before DVC's commit costs nothing.

    Curves that wait for MLflow stay too.
    """
    for other in set(checkpoints.parent.iterdir()) - {checkpoints}:
        for folder in [path for path in other.iterdir() if path.is_dir()] if waiting(other) else [other]:
            shutil.rmtree(folder)
