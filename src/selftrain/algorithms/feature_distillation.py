"""Distillation of what lies inside a teacher, too: Romero et al., "FitNets", ICLR 2015, arXiv 1412.6550.

Beside the loss of ``soft_targets.py``, the student's last feature maps s have to become the teacher's t, by a learned
1×1 convolution P where they have another number of channels, which is thrown away afterwards:

    factor · 1/K · Σ_k 1/N · Σ_x ‖P_k(s_k(x)) − t_k(x)‖² / ‖t_k(x)‖²

or, with ``distance: cosine``, the mean of 1 − cos(P_k(s_k(x)), t_k(x)), which leaves the features' size alone.
Maps of different sizes are averaged down to the smaller one. The paper matches one hint layer first and distills
afterwards, with plain squared error; here both go on at once, and the error is relative, so that one factor fits
networks whose features differ in scale. Feature maps are timm's (``forward_intermediates``). The teacher is run along,
on the student's view: there is no table of features. ``hardware.compile`` compiles a network's ``forward`` and does not
reach its feature maps.
"""

from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from selftrain.learning.algorithm import Batch, Needs, Networks
from selftrain.learning.losses import full_precision
from selftrain.learning.runtime import Runtime
from selftrain.learning.soft_targets import DistillingAlgorithm, SoftTargetsConfig, sources, views_of


class FeatureDistillationConfig(SoftTargetsConfig):
    """``train.algorithm`` of feature distillation."""

    factor: float = Field(default=1.0, ge=0)
    """Of the features' loss."""
    distance: Literal["squared", "cosine"] = "squared"
    features: int = Field(default=1, ge=1)
    """K: how many of the last feature maps are matched, the deepest with the deepest."""


def feature_loss(student: list[Tensor], teacher: list[Tensor], distance: str = "squared") -> Tensor:
    """Mean over layers and images of the squared error relative to the teacher's squares, or of 1 less the cosine.

    Lists of (B, C', H', W') → scalar.
    """
    each = []
    for student_maps, wanted in zip(student, teacher, strict=True):
        size = (min(student_maps.shape[2], wanted.shape[2]), min(student_maps.shape[3], wanted.shape[3]))
        student_maps, wanted = (
            functional.adaptive_avg_pool2d(full_precision(maps), size) for maps in (student_maps, wanted)
        )
        if distance == "cosine":
            each.append((1 - functional.cosine_similarity(student_maps.flatten(1), wanted.flatten(1))).mean())
            continue
        error, scale = ((student_maps - wanted).square(), wanted.square())  # (B, C', H', W')
        each.append((error.flatten(1).sum(1) / scale.flatten(1).sum(1).clamp(min=1e-12)).mean())
    return torch.stack(each).mean()


class FeatureDistillation(DistillingAlgorithm):
    """A student of a teacher's predictions and features."""

    Config = FeatureDistillationConfig
    config: FeatureDistillationConfig
    networks = ("projections",)

    @classmethod
    def needs(cls, config: FeatureDistillationConfig) -> Needs:
        """The teacher."""
        return Needs(views_of(config), cls.networks, teacher=True, layers=cls.networks)

    def __init__(self, student: nn.Module, config: Any, networks: Networks) -> None:
        super().__init__(student, config, networks)
        self.teacher = networks.teacher()
        channels = zip(
            networks.feature_channels(student, config.features),
            self.teacher.feature_channels(config.features),
            strict=True,
        )
        self.projections = nn.ModuleList(
            nn.Identity() if channels_in == wanted else nn.Conv2d(channels_in, wanted, 1)
            for channels_in, wanted in channels
        )

    def trained_networks(self) -> dict[str, nn.Module]:
        """The student and its projections, if there are any to learn."""
        learned = {"projections": self.projections} if any(True for _ in self.projections.parameters()) else {}
        return {"student": self.student, **learned}

    def teacher_log_probs(self, views: dict[str, Tensor], runtime: Runtime) -> Tensor:
        """Of the teacher."""
        return self.teacher.log_probs(views["image"])

    def loss(self, batch: Batch, step: int, runtime: Runtime) -> dict[str, Tensor]:
        """See the module's docstring."""
        counts = {source: len(views["image"]) for source, views in batch.items()}
        images = torch.cat([views["image"] for views in batch.values()])
        with runtime.noise(self.student, counts):
            features, maps = self.student.forward_intermediates(images, indices=self.config.features)  # type: ignore[operator]
            logits = self.student.forward_head(features)  # type: ignore[operator]  # (B, C)
        by_source = dict(zip(counts, logits.split([*counts.values()]), strict=True))
        losses = self.losses_of(by_source, batch, step, runtime)
        rows = torch.cat(
            [torch.full((n,), source in sources(self.config.distill_on)) for source, n in counts.items()]
        ).to(images.device)
        projected = [project(student_maps[rows]) for project, student_maps in zip(self.projections, maps, strict=True)]
        losses["feature_loss"] = feature_loss(
            projected, self.teacher.features(images[rows], self.config.features), self.config.distance
        )
        losses["loss"] = losses["loss"] + self.config.factor * losses["feature_loss"]
        return losses
