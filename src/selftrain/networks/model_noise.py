"""Dropout and stochastic depth on some rows of a batch.

A batch's labeled and pseudo-labeled images go through the student together, and ``train.noise`` may switch a noise
off for one of them, which timm's own modules cannot do: they noise every row.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from timm.layers.drop import DropPath
from torch import Tensor, nn
from torch.nn import functional

from selftrain.params.noise import NoiseConfig


class ModelNoise:
    """The noise inside one network, and which rows of the batch in hand it acts on."""

    def __init__(self, network: nn.Module, config: NoiseConfig) -> None:
        self.config = config
        self.rows: dict[str, Tensor | None] = {"dropout": None, "stochastic_depth": None}
        """(B,) Which rows each noise acts on; None: all. Replaced as a whole."""
        for classifier in classifiers(network) if config.dropout else ():
            classifier.register_forward_pre_hook(self._drop_features)
        for module in list(network.modules()):
            for name, child in module.named_children():
                if isinstance(child, DropPath):
                    setattr(module, name, RowDropPath(child, lambda: self.rows["stochastic_depth"]))

    @contextmanager
    def noised_rows(self, counts: dict[str, int]) -> Iterator[None]:
        """While it lasts, a batch is ``counts`` images of each source, in that order, each with its own noises."""
        acts = {noise: {source: noise in self.config.on(source) for source in counts} for noise in self.rows}
        self.rows = {
            noise: None
            if all(on.values())
            else torch.cat([torch.full((count,), on[source]) for source, count in counts.items()])
            for noise, on in acts.items()
        }
        try:
            yield
        finally:
            self.rows = dict.fromkeys(self.rows)

    def _drop_features(self, module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        features = inputs[0]  # (B, …)
        noised = functional.dropout(features, self.config.dropout, module.training)
        return (on_rows(self.rows["dropout"], noised, features), *inputs[1:])


class RowDropPath(nn.Module):
    """Stochastic depth (Huang et al. 2016, arXiv 1603.09382) on the rows that ``rows`` returns, None being all."""

    def __init__(self, drop_path: DropPath, rows: Callable[[], Tensor | None]) -> None:
        super().__init__()
        self.drop_path, self.rows = drop_path, rows

    def forward(self, branch: Tensor) -> Tensor:
        """(B, …) → (B, …), in training some rows zero and the others scaled up."""
        return on_rows(self.rows(), self.drop_path(branch), branch)


def on_rows(rows: Tensor | None, noised: Tensor, clean: Tensor) -> Tensor:
    """``noised`` where ``rows`` (B,) is true and ``clean`` elsewhere, both (B, …); None is true everywhere."""
    if rows is None:
        return noised
    assert len(rows) == len(clean)
    return torch.where(rows.to(clean.device).view(-1, *[1] * (clean.dim() - 1)), noised, clean)


def classifiers(network: nn.Module) -> tuple[nn.Module, ...]:
    """A timm model's last layer; those that were distilled, or have several branches, have several."""
    last = network.get_classifier()  # type: ignore[operator]
    return tuple(last) if isinstance(last, (tuple, nn.ModuleList)) else (last,)
