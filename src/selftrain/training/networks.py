"""The networks of a training: made for it, or loaded from the round's teacher."""

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from selftrain.errors import UserError
from selftrain.training.config import TrainConfig
from selftrain.training.models import create_model, load_model, normalization


class RunNetworks:
    """Makes a run's networks: what algorithms know as ``Networks``."""

    def __init__(self, teacher: Path | None, classes: list[str], config: TrainConfig, device: torch.device) -> None:
        self.teacher_folder, self.classes, self.config, self.device = teacher, classes, config, device
        self._normalization: tuple[list[float], list[float]] | None = None

    def student(self, weights: Path | None) -> nn.Module:
        """The student, from ``weights``, a timm model folder, or, without, as its parameters say."""
        student = self._create("student", weights)
        self._normalization = normalization(student)
        return student

    def new(self, name: str) -> nn.Module:
        """Another network, which is trained beside the student and sees the same batches.

        Raises UserError if it wants them normalised otherwise, or is to start from a teacher that is not there.
        """
        own = self.config.of_network(name)
        if own.init == "teacher" and self.teacher_folder is None:
            raise UserError(f"train.networks.{name}.init: there is no teacher to start from")
        network = self._create(name, self.teacher_folder if own.init == "teacher" else None)
        if normalization(network) != self._normalization:
            raise UserError(
                f"train.networks.{name}.model: '{own.model}' takes images with another mean and deviation than the "
                f"student's '{self.config.model}'; take models that share them"
            )
        return network

    def teacher(self) -> "FrozenTeacher":
        """The round's teacher. Raises UserError if there is none, or if it knows other classes."""
        if self.teacher_folder is None:
            raise UserError("train.algorithm: it runs the round's teacher, and there is none; give --teacher")
        assert self._normalization is not None
        network, about = load_model(self.teacher_folder)
        if about.get("label_names") != self.classes:
            raise UserError(f"{self.teacher_folder}: knows other classes than the corpus; a teacher has to share them")
        size = about["pretrained_cfg"]["input_size"][1]
        return FrozenTeacher(network, size, self._normalization, self.device)

    def feature_channels(self, network: nn.Module, count: int) -> list[int]:
        """Channels of a network's last ``count`` feature maps."""
        return feature_channels(network, count)

    def _create(self, name: str, weights: Path | None) -> nn.Module:
        own = self.config.of_network(name)
        return create_model(
            own.model,
            len(self.classes),
            own.image_size,
            pretrained=own.pretrained,
            weights=weights,
            stochastic_depth=own.noise.stochastic_depth,
            options=own.model_options,
        )


class FrozenTeacher:
    """A network in eval mode, without gradients, that takes images as its student does: see ``Teacher``.

    No module: nothing that is done to the algorithm, ``train()``, optimizers, checkpoints, reaches it. It undoes the
    student's normalisation for its own, and resizes to the size that it was trained at.
    """

    def __init__(
        self, network: nn.Module, size: int, of_student: tuple[list[float], list[float]], device: torch.device
    ) -> None:
        self.size = size
        self.network = network.eval().requires_grad_(False).to(device).to(memory_format=torch.channels_last)
        own = normalization(network)
        (mean, std), (own_mean, own_std) = (
            [torch.tensor(part, device=device).view(-1, 1, 1) for part in parts] for parts in (of_student, own)
        )
        self.scale, self.offset = std / own_std, (mean - own_mean) / own_std

    @torch.no_grad()
    def log_probs(self, images: Tensor) -> Tensor:
        """Images as the student gets them, (B, 3, H, W) → log-probabilities (B, C)."""
        logits: Tensor = self.network(self._as_own(images))
        return logits.float().log_softmax(dim=1)

    @torch.no_grad()
    def features(self, images: Tensor, count: int) -> list[Tensor]:
        """The last ``count`` feature maps (B, C', H', W'), from the shallow to the deep."""
        maps: list[Tensor] = self.network.forward_intermediates(  # type: ignore[operator]
            self._as_own(images), indices=count, intermediates_only=True
        )
        return maps

    def feature_channels(self, count: int) -> list[int]:
        """Channels of these maps."""
        return feature_channels(self.network, count)

    def _as_own(self, images: Tensor) -> Tensor:
        if images.shape[-1] != self.size:
            images = functional.interpolate(images, size=(self.size, self.size), mode="bilinear", antialias=True)
        return images * self.scale + self.offset


def feature_channels(network: nn.Module, count: int) -> list[int]:
    """Channels of a timm model's last ``count`` feature maps. Raises UserError if it does not give them."""
    known = getattr(network, "feature_info", None)
    if not hasattr(network, "forward_intermediates") or known is None:
        raise UserError(f"feature_distillation: a {type(network).__name__} gives no feature maps; take another model")
    if len(known) < count:
        raise UserError(f"feature_distillation: features: a {type(network).__name__} has only {len(known)} of them")
    return [info["num_chs"] for info in list(known)[-count:]]
