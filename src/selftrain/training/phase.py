"""One phase of a training, made ready: a network, its images and the loop over them."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from selftrain.algorithms.linear_probe import LinearProbe, LinearProbeConfig
from selftrain.counters import Stream, mixed_int
from selftrain.learning.algorithm import find_algorithm
from selftrain.learning.closed_form import FittedHead
from selftrain.networks.export import divide_logits
from selftrain.params.train import TrainConfig
from selftrain.plumbing.errors import UserError
from selftrain.plumbing.hardware import Hardware
from selftrain.training.batches import Process, TrainingBatches
from selftrain.training.head import put_in_fitted_head
from selftrain.training.labeled_images import labeled_and_validation, labeled_log_probs
from selftrain.training.loop import Loop
from selftrain.training.pseudo_labels import PseudoLabels, labeled_as_pool
from selftrain.training.run import Training
from selftrain.training.run_networks import RunNetworks
from selftrain.training.validation import Validation


@dataclass(frozen=True)
class Phase:
    """What is run: ``loop.run(batches, validation, …)``."""

    loop: Loop
    batches: TrainingBatches
    validation: Validation
    head: FittedHead | None
    """The classifier that it starts from, where that was fitted."""

    def result(self, calibrated: bool) -> tuple[nn.Module, float]:
        """The network with its best weights on validation, and the temperature that is folded into its classifier.

        Only the training's result is calibrated; a later phase goes on from the weights as they were trained.
        """
        network = self.loop.evaluated_model()
        network.load_state_dict(self.loop.best_weights)
        if self.head is not None and self.head.temperature is not None and self.loop.algorithm.closed_form:
            return network, self.head.temperature
        if not calibrated or self.loop.config.calibration == "none":
            return network, 1.0
        temperature = self.validation.temperature(network)
        divide_logits(network, temperature)
        return network, temperature


def make_phase(
    training: Training,
    config: TrainConfig,
    number: int,
    weights: Path | None,
    pseudo_labels: PseudoLabels | None,
    classes: list[str],
    process: Process,
    machine: Hardware,
) -> Phase:
    """A training's ``number``-th phase, from ``weights``, a timm model folder (None: from scratch).

    Raises UserError for what the algorithm cannot do.
    """
    seed = mixed_int(training.run_seed, Stream.LATER_PHASE, number) if number else training.run_seed
    algorithm_class, parameters = find_algorithm(config.algorithm.name, config.algorithm.parameters)
    needs = algorithm_class.needs(parameters)
    labeled, held_out = labeled_and_validation(training.corpus, config.resplit, training.seed)
    pool = pseudo_labels
    if config.pool == "labeled" and "unlabeled" in needs.views:
        pool = labeled_as_pool(labeled, len(classes))
    torch.manual_seed(mixed_int(seed, Stream.WEIGHTS))

    networks = RunNetworks(training.teacher, classes, config, machine.device)
    student = networks.student(weights)
    if number == 0 and process.rank == 0 and not algorithm_class.shrinks:
        _warn_if_smaller(student, training)
    fitted = None
    if algorithm_class.closed_form:
        read = pool if "unlabeled" in needs.views else None
        fitted = put_in_fitted_head(student, algorithm_class, parameters, labeled, read, classes, config, seed, machine)
    elif config.head == "linear_probe":
        fitted = put_in_fitted_head(
            student, LinearProbe, LinearProbeConfig(), labeled, None, classes, config, seed, machine
        )
    algorithm = algorithm_class(student, parameters, networks)
    steps_per_epoch = _steps_per_epoch(config, needs.views, len(labeled), pool)
    try:
        algorithm_class.check(parameters, config.total_steps(steps_per_epoch))
    except UserError as error:
        raise UserError(f"'{training.name}': {error}") from None
    loop = Loop(algorithm, config, steps_per_epoch, seed, machine, process)
    teacher_log_probs = None
    if needs.reads_table("labeled"):
        assert training.labeled_predictions is not None
        teacher_log_probs = labeled_log_probs(labeled, training.labeled_predictions)
    batches = TrainingBatches(config, needs.views, seed, process, labeled, pool, teacher_log_probs, machine.caches)
    return Phase(loop, batches, Validation(held_out, config, machine, process), fitted)


def _steps_per_epoch(
    config: TrainConfig, sources: dict[str, tuple[str, ...]], labeled: int, pseudo_labels: PseudoLabels | None
) -> float:
    """An epoch is counted in labeled images (Noisy Student, Section 3.1), where there are any in the batch."""
    if "labeled" in sources:
        return labeled / config.batch_size
    if "unlabeled" not in sources:
        return 1.0  # it takes no steps
    assert pseudo_labels is not None
    return len(pseudo_labels.epoch) / (config.batch_size * config.unlabeled_ratio)


def _warn_if_smaller(student: nn.Module, training: Training) -> None:
    parameters = sum(parameter.numel() for parameter in student.parameters())
    teacher = training.teacher_run()
    of_teacher = 0 if teacher is None else teacher.parameters
    if parameters < of_teacher:
        print(
            f"warning: {training.name} ({parameters:,} parameters) is smaller than its teacher ({of_teacher:,}); Noisy "
            "Student wants an equal or larger student, since it has to fit labeled and pseudo-labeled images under "
            "noise (Section 2)"
        )
