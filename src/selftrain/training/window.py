"""The steps since the last point of the curves: their means, and the first that is not finite."""

import time

import torch
from torch import Tensor


class Window:
    """The steps since the last point of the curves."""

    def __init__(self) -> None:
        self.steps, self.images, self.started, self.losses = 0, 0, time.monotonic(), list[dict[str, Tensor]]()
        self.finite: list[Tensor] = []

    def add(self, losses: dict[str, Tensor], images: int, finite: Tensor) -> None:
        """Count one step. ``finite``, on the device, says whether its gradients were."""
        self.steps, self.images = self.steps + 1, self.images + images
        self.losses.append(losses)
        self.finite.append(finite & losses["loss"].isfinite() if "loss" in losses else finite)

    def take_nonfinite(self) -> list[int]:
        """Leave out the steps whose ``loss`` or gradients are NaN or infinite; returns their places.

        It waits for the device, so it is asked once in many steps.
        """
        if not self.finite:
            return []
        places = [place for place, finite in enumerate(torch.stack(self.finite).tolist()) if not finite]
        for place in places:
            self.losses[place], self.finite[place] = {}, torch.ones_like(self.finite[place])
        return places

    def leave_out(self, seconds: float) -> None:
        """Do not count time that was spent on something else."""
        self.started += seconds

    @property
    def seconds(self) -> float:
        """Since the window began."""
        return time.monotonic() - self.started

    def means(self) -> dict[str, float]:
        """Each loss's mean over the steps that have it, and the images a second."""
        found: dict[str, list[Tensor]] = {}
        for losses in self.losses:
            for name, value in losses.items():
                found.setdefault(name, []).append(value)
        means = {name: float(torch.stack(values).mean()) for name, values in found.items()}
        return means | {"images_per_second": self.images / self.seconds}
