"""A run's model as robustness suites look at it."""

import hashlib
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from selftrain.networks.models import in_float32, input_square, load_model, normalization, to_input
from selftrain.plumbing.hardware import Hardware, HardwareConfig, resolve
from selftrain.tables.records import label_names


class Subject:
    """A model in eval mode, with its normalization as part of it."""

    def __init__(self, folder: Path, config: HardwareConfig) -> None:
        self.hardware: Hardware = resolve(config)
        model, _ = load_model(folder)
        self.model = model.to(self.hardware.device).to(memory_format=torch.channels_last)
        for parameter in self.model.parameters():
            parameter.requires_grad_(False)
        self.classes: list[str] = label_names(folder)
        self.size, self.crop_fraction = input_square(model)
        self.mean, self.std = normalization(model)
        digest = hashlib.sha256((folder / "model.safetensors").read_bytes())
        digest.update((folder / "config.json").read_bytes())
        self.digest = digest.hexdigest()

    @torch.inference_mode()
    def log_probs(self, images: Tensor) -> Tensor:
        """(B, S, S, 3) uint8 → (B, C) float32 log-probabilities on the CPU; another size is resized to the own."""
        inputs = to_input(images, self.mean, self.std, self.hardware.device)
        if images.shape[1] != self.size:
            inputs = functional.interpolate(inputs, (self.size, self.size), mode="bilinear", antialias=True)
        with self.hardware.autocast():
            features = self.model.forward_features(inputs)  # type: ignore[operator]
        logits: Tensor = self.model.forward_head(in_float32(features))  # type: ignore[operator]
        return logits.log_softmax(dim=1).cpu()

    def network(self, images: Tensor) -> Tensor:
        """(B, 3, S, S) values 0–1 → (B, C) logits, in float32: attacks need the gradient of just this."""
        mean, std = (torch.tensor(values, device=images.device).view(3, 1, 1) for values in (self.mean, self.std))
        logits: Tensor = self.model((images - mean) / std)
        return logits
