"""The stage ``train``: one run, from its parameters and tables to a timm model folder."""

import shutil
import subprocess
import sys

import torch

from selftrain.algorithms.algorithm import find_algorithm
from selftrain.files import read_json
from selftrain.hardware import Hardware, processes, resolve
from selftrain.stage import WORK, end_with_parent
from selftrain.training.batches import Share, TrainingBatches
from selftrain.training.distributed import process_group, rank_and_world, wait_for_all
from selftrain.training.export import export
from selftrain.training.loading import load_index
from selftrain.training.loop import Loop
from selftrain.training.models import create_model
from selftrain.training.provenance import fingerprint
from selftrain.training.pseudo_labels import load_pseudo_labels
from selftrain.training.run import Run
from selftrain.training.tracked import tracked
from selftrain.training.validation import Validation


def train(run: Run, restart: list[str]) -> None:
    """Train a run and write its model folder; go on where a killed process stopped.

    ``restart`` is the command line that starts this very training, for torchrun to run once a process.
    """
    rank, world_size, local_rank, local_processes = rank_and_world()
    wanted = processes(run.hardware)
    if world_size == 1 and wanted > 1:
        _restart_in_processes(wanted, restart)
        return
    machine = resolve(run.hardware, local_rank, local_processes)
    with process_group(machine.device):
        _train(run, Share(rank, world_size), machine)
        wait_for_all()


def _train(run: Run, share: Share, machine: Hardware) -> None:
    config = run.config
    algorithm_class, algorithm_config = find_algorithm(config.algorithm.name, config.algorithm.parameters)
    run.check("unlabeled" in algorithm_class.views, share.world_size)
    classes = read_json(run.corpus / "classes.json", "dvc repro ingest")
    labeled = load_index(run.corpus / "labeled")
    pseudo_labels = None
    if "unlabeled" in algorithm_class.views:
        assert run.selection is not None
        assert run.predictions is not None
        pseudo_labels = load_pseudo_labels(run.corpus / "unlabeled", run.selection, run.predictions, WORK / "scratch")
    torch.manual_seed(run.seed)
    student = create_model(
        config.model,
        len(classes),
        config.image_size,
        pretrained=config.pretrained,
        dropout=config.noise.dropout,
        stochastic_depth=config.noise.stochastic_depth,
    )
    algorithm = algorithm_class(student, algorithm_config)
    loop = Loop(algorithm, config, config.total_steps(len(labeled)), run.seed, machine, share)
    batches = TrainingBatches(config, algorithm.views, run.seed, share, labeled, pseudo_labels)
    validation = Validation(load_index(run.corpus / "validation"), config, machine, share)

    data = run.data_digests()
    version = fingerprint(config.model_dump(mode="json"), run.seed, data, machine.bf16)
    checkpoints = WORK / "checkpoints" / run.name / version
    with tracked(run, data, checkpoints, share.rank) as curves:
        loop.run(batches, validation, curves, checkpoints, run.hardware.checkpoint_seconds)
        if share.rank == 0:
            export(loop, run, classes, data, curves.wait_for_run())
    if share.rank == 0:
        # The run's own stay until it has a next version: a kill before DVC's commit then costs nothing.
        for other in set(checkpoints.parent.iterdir()) - {checkpoints}:
            shutil.rmtree(other)


def _restart_in_processes(wanted: int, command: list[str]) -> None:
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={wanted}"]
    # Without it a killed training leaves torchrun and its processes behind.
    code = subprocess.run([*torchrun, *command], check=False, preexec_fn=end_with_parent).returncode
    if code:
        raise SystemExit(code)
