"""A network compiled for one size of batch, where images are so many that it pays: 1.2 to 2 times as fast on CPUs."""

import time
from collections.abc import Callable

from torch import Tensor

from selftrain.plumbing.errors import one_line

PAYS = 120.0
"""Seconds of forward passes from which on compiling, 5 to 30 seconds, is worth it."""
Forward = Callable[[Tensor], Tensor]
"""From images (B, 3, H, W) to features (B, …)."""


def seconds_of(forward: Forward, batch: Tensor) -> float:
    """What one batch takes, after one that warms up."""
    forward(batch)
    began = time.perf_counter()
    forward(batch)
    return time.perf_counter() - began


def compiled(forward: Forward, batch: Tensor) -> Forward | None:
    """The compiled forward pass, for batches of up to this one's size; None, and a line that says why, if it fails.

    Weights become constants, so that they must not change any more.
    """
    import torch._inductor.config

    whole = len(batch)
    made = torch.compile(forward, dynamic=False)
    try:
        # As it is called later: what is compiled in inference mode would be compiled again, without constants.
        with torch._inductor.config.patch(freezing=True), torch.inference_mode(mode=False), torch.no_grad():
            made(batch.clone(memory_format=torch.channels_last))
    # A missing C++ compiler, an operation that is not known: each version says it in another way.
    except Exception as error:  # noqa: BLE001
        reason = one_line(error)
        print(f"predict: the network is not compiled ({type(error).__name__}: {reason})")
        return None

    def padded(images: Tensor) -> Tensor:
        missing = whole - len(images)
        filled = torch.cat([images, images[-1:].expand(missing, *images.shape[1:])]) if missing else images
        # Weights are constants only where nothing is recorded, and inference mode is not known to the compiler.
        with torch.inference_mode(mode=False), torch.no_grad():
            found: Tensor = made(filled.clone(memory_format=torch.channels_last))
        return found[: len(images)]

    return padded
