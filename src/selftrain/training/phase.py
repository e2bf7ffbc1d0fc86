"""One phase of a training: a network, its images and the loop over them."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from selftrain.algorithms.algorithm import find_algorithm
from selftrain.counters import mixed_int
from selftrain.errors import UserError
from selftrain.hardware import Hardware
from selftrain.training.batches import Share, TrainingBatches
from selftrain.training.config import TrainConfig
from selftrain.training.labeled_images import labeled_and_validation, labeled_opinions
from selftrain.training.loop import Curves, Loop
from selftrain.training.networks import RunNetworks
from selftrain.training.pseudo_labels import PseudoLabels, labeled_as_pool
from selftrain.training.run import Run
from selftrain.training.validation import Validation

LATER_PHASE = 4
"""Names the stream of random numbers that later phases take their seeds from."""


@dataclass(frozen=True)
class Setting:
    """What every phase of a run has in common."""

    run: Run
    classes: list[str]
    pseudo_labels: PseudoLabels | None
    share: Share
    machine: Hardware


def train_phase(
    setting: Setting, config: TrainConfig, number: int, weights: Path | None, curves: Curves, checkpoints: Path
) -> Loop:
    """Train a run's ``number``-th phase from ``weights``, a timm model folder (None: from scratch), to its end."""
    run, share, machine = setting.run, setting.share, setting.machine
    seed = mixed_int(run.seed, LATER_PHASE, number) if number else run.seed
    algorithm_class, parameters = find_algorithm(config.algorithm.name, config.algorithm.parameters)
    needs = algorithm_class.needs(parameters)
    labeled, held_out = labeled_and_validation(run.corpus, config.resplit, run.seed)
    pool = setting.pseudo_labels
    if config.pool == "labeled" and "unlabeled" in needs.views:
        pool = labeled_as_pool(labeled, len(setting.classes))
    torch.manual_seed(seed)

    networks = RunNetworks(run.teacher, setting.classes, config, machine.device)
    student = networks.student(weights)
    if number == 0 and share.rank == 0 and not algorithm_class.shrinks:
        _warn_if_smaller(student, run)
    algorithm = algorithm_class(student, parameters, networks)
    steps_per_epoch = _steps_per_epoch(config, needs.views, len(labeled), pool)
    if config.total_steps(steps_per_epoch) <= algorithm.first_step("student"):
        raise UserError(
            f"train.algorithm.student_wait_steps of '{run.name}': the training ends before the student begins"
        )
    if getattr(parameters, "delay_steps", 0) >= config.total_steps(steps_per_epoch):
        raise UserError(f"train.algorithm.delay_steps of '{run.name}': the training ends before the student listens")
    if machine.compile and getattr(parameters, "feedback", None) == "exact":
        raise UserError("hardware.compile: PyTorch compiles no derivatives of derivatives; not with `feedback: exact`")
    loop = Loop(algorithm, config, steps_per_epoch, seed, machine, share)
    opinions = None
    if needs.reads_table("labeled"):
        assert run.labeled_predictions is not None
        opinions = labeled_opinions(labeled, run.labeled_predictions)
    batches = TrainingBatches(config, needs.views, seed, share, labeled, pool, opinions)
    validation = Validation(held_out, config, machine, share)
    title = f"train {run.name}" if number == 0 else f"train {run.name}: {checkpoints.name}"
    loop.run(batches, validation, curves, checkpoints, run.hardware.checkpoint_seconds, title)
    return loop


def _steps_per_epoch(
    config: TrainConfig, sources: dict[str, tuple[str, ...]], labeled: int, pseudo_labels: PseudoLabels | None
) -> float:
    """An epoch is counted in labeled images (Noisy Student, Section 3.1), where there are any in the batch."""
    if "labeled" in sources:
        return labeled / config.batch_size
    assert pseudo_labels is not None
    return len(pseudo_labels.epoch) / (config.batch_size * config.unlabeled_ratio)


def _warn_if_smaller(student: nn.Module, run: Run) -> None:
    own = sum(parameter.numel() for parameter in student.parameters())
    teachers = run.teacher_run().get("parameters")
    if teachers is not None and own < teachers:
        print(
            f"warning: {run.name} ({own:,} parameters) is smaller than its teacher ({teachers:,}); Noisy Student wants "
            "an equal or larger student, since it has to fit labeled and pseudo-labeled images under noise (Section 2)"
        )
