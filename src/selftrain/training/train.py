"""The stage ``train``: one run, from its parameters and tables to a timm model folder."""

import shutil
import subprocess
import sys

from selftrain.algorithms.algorithm import find_algorithm
from selftrain.files import read_json
from selftrain.hardware import Hardware, processes, resolve
from selftrain.stage import WORK, end_with_parent
from selftrain.training.batches import Share
from selftrain.training.check import check_fit
from selftrain.training.config import phases
from selftrain.training.distributed import process_group, rank_and_world, wait_for_all
from selftrain.training.export import EndedPhase, export, write_weights
from selftrain.training.phase import Setting, train_phase
from selftrain.training.provenance import fingerprint
from selftrain.training.pseudo_labels import load_pseudo_labels
from selftrain.training.run import Run
from selftrain.training.tracked import PhaseCurves, tracked


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
    planned = phases(run.config)
    reads_pool = reads_table = reads_labeled_table = False
    for phase in planned.values():
        algorithm, parameters = find_algorithm(phase.algorithm.name, phase.algorithm.parameters)
        needs = algorithm.needs(parameters)
        check_fit(phase, needs, f"'{run.name}'")
        run.check(phase, needs, share.world_size)
        reads_labeled_table |= needs.reads_table("labeled")
        if phase.pool == "selection":
            reads_pool |= "unlabeled" in needs.views
            reads_table |= needs.reads_table("unlabeled")
    classes = read_json(run.corpus / "classes.json", "dvc repro ingest")
    pseudo_labels = None
    if reads_pool:
        assert run.selection is not None
        assert run.predictions is not None
        # A row of log-probabilities for each image can be larger than the images; only what reads them gets them.
        pseudo_labels = load_pseudo_labels(
            run.corpus / "unlabeled", run.selection, run.predictions, WORK / "scratch", with_log_probs=reads_table
        )

    setting = Setting(run, classes, pseudo_labels, share, machine)
    data = run.data_digests(reads_labeled_table)
    version = fingerprint(
        run.config.model_dump(mode="json"), list(planned.values()), run.seed, data, [machine.bf16, machine.compile]
    )
    checkpoints = WORK / "checkpoints" / run.pipeline / run.name / version
    with tracked(run, data, checkpoints, share.rank) as curves:
        weights = run.teacher if run.config.init == "teacher" else None
        ended: list[EndedPhase] = []
        for number, (name, phase) in enumerate(planned.items()):
            first_step = sum(before.steps for before in ended)
            of_phase = PhaseCurves(curves, name if number else "", first_step)
            loop = train_phase(setting, phase, number, weights, of_phase, checkpoints / name)
            weights = checkpoints / name / "result"
            if share.rank == 0:
                write_weights(loop, phase, classes, weights)
            wait_for_all()
            ended.append(EndedPhase(name, loop))
            del loop  # its network and optimizer would lie in memory beside the next phase's
        if share.rank == 0:
            export(run, checkpoints, ended, data, curves.wait_for_run())
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
