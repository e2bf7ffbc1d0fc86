"""Whether a trained network may label in a quicker way: its labels have to be those that it gives otherwise."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from torch import Tensor

SAMPLE = 2048
"""Validation images that are labeled twice, at most."""
AGREEMENT = 0.999
"""Share of the sample's labels that must not change: of fewer than a thousand all."""


@dataclass(frozen=True)
class Verdict:
    """What became of a quicker way for a network."""

    images: int
    """Images that were labeled in both ways; 0 where there was nothing to compare."""
    changed: int = 0

    @property
    def agrees(self) -> bool:
        """Whether few enough labels changed."""
        return self.changed <= (1 - AGREEMENT) * self.images

    def __str__(self) -> str:
        chosen, why = ("bf16", "as") if self.agrees else ("float32", "since")
        return (
            f"{chosen}, {why} {self.images - self.changed} of {self.images} validation images keep their labels in bf16"
        )


def compare(
    batches: Iterable[Tensor], logits_of: Callable[[Tensor], Tensor], expected: Callable[[Tensor], Tensor]
) -> Verdict:
    """Label batches of images in two ways, which give logits (B, C)."""
    images = changed = 0
    for batch in batches:
        images += len(batch)
        changed += int((logits_of(batch).argmax(dim=1) != expected(batch).argmax(dim=1)).sum())
    return Verdict(images, changed)
