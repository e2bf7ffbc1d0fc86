"""Whether a trained network may label in bf16: its labels have to be those that it gives in float32."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from torch import Tensor

from selftrain.plumbing.hardware import Hardware

SAMPLE = 2048
"""Validation images that are labeled twice, at most."""
AGREEMENT = 0.999
"""Share of the sample's labels that bf16 must not change: of fewer than a thousand all."""


@dataclass(frozen=True)
class Verdict:
    """What became of bf16 for a network."""

    images: int
    """Images that were labeled in both precisions; 0 where there was nothing to compare."""
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


def compare(batches: Iterable[Tensor], hardware: Hardware, logits_of: Callable[[Tensor, Hardware], Tensor]) -> Verdict:
    """Label batches of images in both precisions; ``logits_of`` gives (B, C) in a machine's precision."""
    images = changed = 0
    for batch in batches:
        in_bf16, in_float32 = (
            logits_of(batch, machine).argmax(dim=1) for machine in (hardware, replace(hardware, bf16=False))
        )
        images += len(batch)
        changed += int((in_bf16 != in_float32).sum())
    return Verdict(images, changed)
