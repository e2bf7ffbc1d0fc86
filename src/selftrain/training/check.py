"""What can be known to be wrong with a run before anything is trained; needs PyTorch and timm for their names."""

from selftrain.algorithms.algorithm import find_algorithm
from selftrain.config import did_you_mean
from selftrain.errors import UserError
from selftrain.training.config import TrainConfig


def check_run(config: TrainConfig, is_round: bool, where: str) -> None:
    """Raises UserError, with ``where`` before it, for names and parameters that the run would stop at."""
    import timm
    from timm.optim._optim_factory import list_optimizers

    try:
        algorithm, _ = find_algorithm(config.algorithm.name, config.algorithm.parameters)
    except UserError as error:
        raise UserError(f"{where}: {error}") from None
    if "unlabeled" in algorithm.views and not is_round:
        raise UserError(f"{where}: {config.algorithm.name} needs pseudo-labels; put the run under `rounds`")
    architecture = config.model.partition(".")[0]
    if not timm.is_model(architecture):
        hint = did_you_mean(architecture, timm.list_models())
        raise UserError(f"{where}.train.model: timm knows no model '{config.model}'; {hint}")
    optimizers = [str(name) for name in list_optimizers()]
    if config.optimizer.lower() not in optimizers:
        hint = did_you_mean(config.optimizer, optimizers)
        raise UserError(f"{where}.train.optimizer: timm knows no optimizer '{config.optimizer}'; {hint}")
