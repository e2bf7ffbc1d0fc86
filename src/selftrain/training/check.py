"""What can be known to be wrong with a run before anything is trained; needs PyTorch and timm for their names."""

from torch import nn

from selftrain.images.randaugment import SAMPLE_PAIRING, policy_operations
from selftrain.learning.algorithm import Algorithm, Needs, find_algorithm
from selftrain.networks.export import check_calibrates
from selftrain.networks.models import check_model_name, check_takes, without_memory
from selftrain.networks.weights import check_source
from selftrain.params.train import MAIN_PHASE, TrainConfig, phases
from selftrain.plumbing.errors import UserError
from selftrain.plumbing.hardware import HardwareConfig
from selftrain.plumbing.sections import did_you_mean
from selftrain.training.optimization import create_optimizer
from selftrain.training.sharding import OTHER_STEPS

OF_A_MODEL = ("model", "model_options", "weights", "init", "frozen", "noise")
"""What a network's parameters say of its timm model."""


NOT_COMPILED = {
    "sync_batchnorm": "compiled networks do not wait for other processes",
    "activation_checkpointing": "compiled networks choose themselves what they compute again",
}
"""Parameters of a training that ``hardware.compile`` excludes."""


def check_run(config: TrainConfig, is_round: bool, where: str, hardware: HardwareConfig) -> None:
    """Raises UserError, with ``where`` before it, for names and parameters that the run would stop at."""
    for name, phase in phases(config, f"{where}.train").items():
        place = where if name == MAIN_PHASE else f"{where}.train.then.{name}"
        try:
            algorithm, parameters = find_algorithm(phase.algorithm.name, phase.algorithm.parameters)
        except UserError as error:
            raise UserError(f"{place}: {error}") from None
        needs = algorithm.needs(parameters)
        check_fit(phase, algorithm, needs, place)
        check_hardware(phase, needs, hardware, place)
        if "unlabeled" in needs.views and phase.pool == "selection" and not is_round:
            raise UserError(f"{place}: {phase.algorithm.name} needs unlabeled images; put the run under `rounds`")
        if not is_round and (needs.teacher or needs.reads_table("labeled")):
            raise UserError(f"{place}: {phase.algorithm.name} needs a teacher; put the run under `rounds`")
        check_ratio(phase, needs, place)
        if phase.init == "teacher" and not is_round:
            raise UserError(f"{place}.train.init: there is no teacher to start from; put the run under `rounds`")
        if name != MAIN_PHASE and needs.networks:
            raise UserError(
                f"{place}: a later phase has the student's weights alone, and {phase.algorithm.name} needs its "
                f"{needs.networks[0]} too; fine-tune with `supervised`"
            )
        try:
            if phase.steps is not None and not algorithm.closed_form:
                algorithm.check(parameters, phase.steps)
            policy_operations(phase.noise.randaugment_policy)
            for network in ("student", *needs.networks):
                network_config = phase.of_network(network)
                if network_config.init == "teacher" and not is_round:
                    raise UserError(f"train.networks.{network}.init: there is no teacher to start from")
                check_model_name(network_config.model)
                if network_config.weights:
                    check_source(network_config.weights, network_config.model)
                if not algorithm.closed_form and network not in needs.layers:
                    images = phase.batch_size // phase.grad_accum_steps * (1 + phase.unlabeled_ratio)
                    stand_in = without_memory(network_config.model, network_config.model_options, phase.image_size)
                    check_takes(stand_in, network_config.model, images, phase.image_size)
                    if network == "student" and phase.calibration == "validation":
                        check_calibrates(stand_in)
                # This stand-in has no layers for `layer_decay`; the network itself is checked when it is made.
                create_optimizer(nn.Linear(1, 1), network_config.model_copy(update={"layer_decay": None}))
        except UserError as error:
            raise UserError(f"{place}.{error}") from None


def check_takes_weights(config: TrainConfig, where: str) -> None:
    """Raises UserError, with ``where`` before it, if no phase of a round multiplies its losses by the weights."""
    for phase in phases(config, where).values():
        algorithm, parameters = find_algorithm(phase.algorithm.name, phase.algorithm.parameters)
        if "weight" in algorithm.needs(parameters).views.get("unlabeled", ()):
            return
    raise UserError(f"{where}: {config.algorithm.name} weighs all images alike; use `one`, or noisy_student")


def check_hardware(phase: TrainConfig, needs: Needs, hardware: HardwareConfig, where: str) -> None:
    """Raises UserError for parameters of a training that do not go with this machine's."""
    for parameter, why in NOT_COMPILED.items():
        if getattr(phase, parameter) and hardware.compile:
            raise UserError(f"{where}: train.{parameter}: {why}; set `hardware.compile` to false")
    for parameter, is_set in {
        "hardware.compile": hardware.compile,
        "hardware.fsdp": hardware.fsdp,
        "train.activation_checkpointing": phase.activation_checkpointing,
    }.items():
        if is_set and needs.second_derivatives:
            raise UserError(
                f"{where}: {parameter}: {phase.algorithm.name} takes second derivatives with these parameters, which "
                "PyTorch has of plain networks alone; set it to false, or take another `feedback` than `exact`"
            )
    if hardware.fsdp and OTHER_STEPS.search(phase.optimizer):
        raise UserError(
            f"{where}: train.optimizer: {phase.optimizer} does not work on weights that are shared out; take another, "
            "such as adamw, or set `hardware.fsdp` to false"
        )


def check_fit(phase: TrainConfig, algorithm: type[Algorithm], needs: Needs, where: str) -> None:
    """Raises UserError for parameters of a training that its algorithm has no use for, or lacks."""
    name = phase.algorithm.name
    if phase.batch_size % phase.grad_accum_steps:
        raise UserError(
            f"{where}.train.grad_accum_steps: {phase.batch_size} labeled images a step do not divide by "
            f"{phase.grad_accum_steps}"
        )
    if phase.grad_accum_steps > 1 and needs.whole_batch:
        raise UserError(
            f"{where}.train.grad_accum_steps: with these parameters {name} divides its loss by a number of images that "
            "differs from part to part; set it to 1, and use a smaller `batch_size` or more processes"
        )
    if phase.grad_accum_steps > 1 and not algorithm.descends_one_loss():
        raise UserError(
            f"{where}.train.grad_accum_steps: {name} takes several gradients a step, each of the whole batch; set it "
            "to 1, and use a smaller `batch_size` or more processes"
        )
    for network in phase.networks:
        if network not in needs.networks:
            known = did_you_mean(network, list(needs.networks)) if needs.networks else "it has the student alone"
            raise UserError(f"{where}: train.networks.{network}: {name} has no such network; {known}")
        for key in OF_A_MODEL:
            if network in needs.layers and key in phase.networks[network]:
                raise UserError(
                    f"{where}: train.networks.{network}.{key}: {name} makes its {network} itself; only their optimizer "
                    "can be set, such as `learning_rate`"
                )
    if needs.reads_table("labeled") and phase.resplit and set(phase.resplit.splits) != {"labeled"}:
        raise UserError(
            f"{where}: train.resplit: the teacher's table of labeled images has none of other splits'; "
            "distill on unlabeled ones only (`distill_on: unlabeled`), or with `teacher: live`"
        )
    noise = phase.noise
    if noise.on_device and noise.randaugment_ops and SAMPLE_PAIRING in policy_operations(noise.randaugment_policy):
        raise UserError(
            f"{where}: train.noise.on_device: the policy '{noise.randaugment_policy}' mixes in a second image "
            f"({SAMPLE_PAIRING}), which only the loader can; set it to false"
        )
    if needs.average and phase.ema_decay is None:
        raise UserError(f"{where}: train.ema_decay: {name} learns from the average of its weights; set it, say 0.999")


def check_ratio(phase: TrainConfig, needs: Needs, where: str) -> None:
    """Raises UserError for a ratio of unlabeled images that an algorithm does not take."""
    name, uses_pool = phase.algorithm.name, "unlabeled" in needs.views
    if uses_pool and phase.unlabeled_ratio == 0:
        raise UserError(f"{where}: train.unlabeled_ratio: is 0; {name} needs unlabeled images")
    if not uses_pool and phase.unlabeled_ratio:
        raise UserError(f"{where}: train.unlabeled_ratio: {name} uses no unlabeled images; set it to 0")
