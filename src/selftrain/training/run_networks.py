"""The networks of a training: made for it, or loaded from the round's teacher."""

from pathlib import Path

import torch
from torch import nn

from selftrain.networks.frozen_teacher import FrozenTeacher, feature_channels
from selftrain.networks.models import create_model, input_square, load_model, normalization
from selftrain.params.train import TrainConfig
from selftrain.plumbing.errors import UserError


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
        network_config = self.config.of_network(name)
        if network_config.init == "teacher" and self.teacher_folder is None:
            raise UserError(f"train.networks.{name}.init: there is no teacher to start from")
        network = self._create(name, self.teacher_folder if network_config.init == "teacher" else None)
        if normalization(network) != self._normalization:
            raise UserError(
                f"train.networks.{name}.model: '{network_config.model}' takes images with another mean and "
                f"deviation than the student's '{self.config.model}'; take models that share them"
            )
        return network

    def teacher(self) -> "FrozenTeacher":
        """The round's teacher. Raises UserError if there is none, or if it knows other classes."""
        if self.teacher_folder is None:
            raise UserError(
                "train.algorithm: it runs the round's teacher, and there is none; put the run under `rounds`"
            )
        assert self._normalization is not None
        network, config_json = load_model(self.teacher_folder)
        if config_json.get("label_names") != self.classes:
            raise UserError(f"{self.teacher_folder}: knows other classes than the corpus; a teacher has to share them")
        return FrozenTeacher(network, input_square(network)[0], self._normalization, self.device)

    def feature_channels(self, network: nn.Module, count: int) -> list[int]:
        """Channels of a network's last ``count`` feature maps."""
        return feature_channels(network, count)

    def _create(self, name: str, weights: Path | None) -> nn.Module:
        network_config = self.config.of_network(name)
        return create_model(
            network_config.model,
            len(self.classes),
            network_config.image_size,
            weights=network_config.weights if weights is None else str(weights),
            stochastic_depth=network_config.noise.stochastic_depth,
            options=network_config.model_options,
        )
