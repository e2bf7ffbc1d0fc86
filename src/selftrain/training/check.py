"""What can be known to be wrong with a run before anything is trained; needs PyTorch and timm for their names."""

from selftrain.algorithms.algorithm import find_algorithm
from selftrain.errors import UserError
from selftrain.training.config import MAIN_PHASE, TrainConfig, phases
from selftrain.training.models import check_model_name
from selftrain.training.optimization import check_optimizer_name


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
        try:
            check_model_name(phase.model)
            check_optimizer_name(phase.optimizer)
        except UserError as error:
            raise UserError(f"{place}.{error}") from None
