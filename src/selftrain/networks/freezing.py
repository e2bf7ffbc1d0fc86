"""Training the deep layers only, as the train–test resolution fix does (Touvron et al. 2019, arXiv 1906.06423)."""

from timm.models._manipulate import group_parameters
from torch import nn

from selftrain.plumbing.errors import UserError


def freeze_shallow(network: nn.Module, share: float) -> None:
    """Freeze a share (0–1) of a timm model's layers, counted from the input; 1 leaves its last group, the classifier.

    Frozen layers are as in evaluation: their BatchNorm statistics stay too. Their state is set by ``train_mode``.

    Raises UserError for a network that is not timm's.
    """
    if share == 0:
        return
    if not hasattr(network, "group_matcher"):
        raise UserError(f"train.networks: a {type(network).__name__} has no layers to freeze; leave out `frozen`")
    groups = group_parameters(network, network.group_matcher(coarse=False))  # type: ignore[operator]
    named = dict(network.named_parameters())
    for group in sorted(groups)[: round(share * (len(groups) - 1))]:
        for name in groups[group]:
            named[name].requires_grad_(False)


def train_mode(module: nn.Module) -> None:
    """Put a module into training mode, but for the layers in it that are frozen."""
    module.train()
    for part in module.modules():
        parameters = list(part.parameters())
        if parameters and not any(parameter.requires_grad for parameter in parameters):
            part.eval()
