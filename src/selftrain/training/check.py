"""What can be known to be wrong with a run before anything is trained; needs PyTorch and timm for their names."""

from selftrain.algorithms.algorithm import find_algorithm
from selftrain.errors import UserError
from selftrain.training.config import TrainConfig
from selftrain.training.models import check_model_name
from selftrain.training.optimization import check_optimizer_name


def check_run(config: TrainConfig, is_round: bool, where: str) -> None:
    """Raises UserError, with ``where`` before it, for names and parameters that the run would stop at."""
    try:
        algorithm, _ = find_algorithm(config.algorithm.name, config.algorithm.parameters)
    except UserError as error:
        raise UserError(f"{where}: {error}") from None
    if "unlabeled" in algorithm.views and not is_round:
        raise UserError(f"{where}: {config.algorithm.name} needs pseudo-labels; put the run under `rounds`")
    try:
        check_model_name(config.model)
        check_optimizer_name(config.optimizer)
    except UserError as error:
        raise UserError(f"{where}.{error}") from None
