"""Gradients averaged over processes while the earlier layers' are still computed.

As PyTorch's DistributedDataParallel does it (Li et al. 2020, arXiv 2006.15704, Section 3.2.3), for gradients that
``torch.autograd.grad`` returns, which its hooks do not see. Parameters lie in buckets from the last layer to the first,
and a bucket is sent when its last gradient is there, in the same order on every process.
"""

from collections.abc import Sequence
from functools import partial
from itertools import pairwise

import torch
from torch import Tensor, distributed

from selftrain.learning.runtime import Gradient, plain_gradient
from selftrain.training.distributed import packed, unpacked

FIRST, LATER = 2**20, 25 * 2**20
"""Bytes of a bucket: the first is small, so that sending begins early."""


def averaged_gradient(
    loss: Tensor, parameters: Sequence[Tensor], so_far: Gradient | None = None, retain_graph: bool = False
) -> Gradient:
    """The loss's gradient by parameters, averaged over processes; None where the loss does not touch one.

    ``so_far`` is what this process has of earlier losses; it is added before the mean is taken. Losses have to touch
    the same parameters on every process.
    """
    if not distributed.is_initialized():
        return plain_gradient(loss, parameters, so_far, retain_graph)
    buckets = Buckets(parameters, so_far)
    hooks = [
        parameter.register_hook(partial(buckets.take, place))  # type: ignore[no-untyped-call]
        for place, parameter in enumerate(parameters)
    ]
    try:
        torch.autograd.grad(loss, list(parameters), allow_unused=True, retain_graph=retain_graph)
    finally:
        for hook in hooks:
            hook.remove()
    return buckets.averaged()


class Buckets:
    """The gradients of one backward pass."""

    def __init__(self, parameters: Sequence[Tensor], so_far: Gradient | None = None) -> None:
        self.count = len(parameters)
        self._parameters = parameters
        self._so_far = so_far or (None,) * self.count
        self.places = bucketed(parameters)
        """Of the parameters in each bucket."""
        self._bucket_of = {place: number for number, places in enumerate(self.places) for place in places}
        self._missing = [len(places) for places in self.places]
        self._found: dict[int, Tensor] = {}
        self._sent: list[tuple[list[int], Tensor, distributed.Work | None]] = []

    def take(self, place: int, gradient: Tensor) -> None:
        """Take a parameter's gradient; send the buckets that are full, up to the first one that is not."""
        before = self._so_far[place]
        self._found[place] = gradient.detach() if before is None else before + gradient.detach()
        self._missing[self._bucket_of[place]] -= 1
        while len(self._sent) < len(self.places) and self._missing[len(self._sent)] == 0:
            self._send()

    def averaged(self) -> Gradient:
        """All gradients' means over the processes."""
        for place, gradient in enumerate(self._so_far):
            if gradient is not None:  # of an earlier loss alone
                self._found.setdefault(place, gradient)
        while len(self._sent) < len(self.places):
            self._send()
        gradients: list[Tensor | None] = [None] * self.count
        for places, flat, work in self._sent:
            if work is not None:
                work.wait()
                flat /= distributed.get_world_size()
            means = unpacked(flat, [self._parameters[place] for place in places])
            for place, mean in zip(places, means, strict=True):
                gradients[place] = mean
        return tuple(gradients)

    def _send(self) -> None:
        places = [place for place in self.places[len(self._sent)] if place in self._found]
        if not places:
            self._sent.append((places, torch.empty(0), None))
            return
        flat = packed([self._found[place] for place in places], [self._parameters[place] for place in places])
        self._sent.append((places, flat, distributed.all_reduce(flat, async_op=True)))


def bucketed(parameters: Sequence[Tensor]) -> list[list[int]]:
    """Places of parameters in buckets, from the last to the first; a bucket's are of one type."""
    found: list[list[int]] = []
    room = 0
    places = list(reversed(range(len(parameters))))
    for before, place in pairwise([places[0], *places]) if places else ():
        parameter = parameters[place]
        size = parameter.numel() * parameter.element_size()
        if not found or size > room or parameters[before].dtype != parameter.dtype:
            room = LATER if found else FIRST
            found.append([])
        found[-1].append(place)
        room -= size
    return found
