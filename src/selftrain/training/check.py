"""What can be known to be wrong with a run before anything is trained; needs PyTorch and timm for their names."""

from torch import nn

from selftrain.algorithms.algorithm import find_algorithm
from selftrain.errors import UserError
from selftrain.training.config import MAIN_PHASE, TrainConfig, phases
from selftrain.training.models import check_model_name
from selftrain.training.optimization import create_optimizer


def check_run(config: TrainConfig, is_round: bool, where: str) -> None:
    """Raises UserError, with ``where`` before it, for names and parameters that the run would stop at."""
    for name, phase in phases(config, f"{where}.train").items():
        place = where if name == MAIN_PHASE else f"{where}.train.then.{name}"
        try:
            algorithm, _ = find_algorithm(phase.algorithm.name, phase.algorithm.parameters)
        except UserError as error:
            raise UserError(f"{place}: {error}") from None
        if "unlabeled" in algorithm.views and not is_round:
            raise UserError(f"{place}: {phase.algorithm.name} needs pseudo-labels; put the run under `rounds`")
        if phase.init == "teacher" and not is_round:
            raise UserError(f"{place}.train.init: there is no teacher to start from; put the run under `rounds`")
        if phase.algorithm.name not in (config.algorithm.name, "supervised"):
            raise UserError(
                f"{place}: a later phase is trained by the run's own algorithm or by `supervised`: "
                "its stage depends on no other's code"
            )
        try:
            check_model_name(phase.model)
            create_optimizer(nn.Linear(1, 1), phase)
        except UserError as error:
            raise UserError(f"{place}.{error}") from None
