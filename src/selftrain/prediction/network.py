"""A run's network, ready to label: folded, in bfloat16 where labels stay, compiled where it pays."""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from selftrain.images.clean_images import CleanImages, in_batches
from selftrain.images.index import load_index
from selftrain.images.loading import ImageLoader
from selftrain.images.workers import in_order
from selftrain.networks.folding import folded
from selftrain.networks.frozen_teacher import feature_maps
from selftrain.networks.models import in_float32, input_square, load_model, normalization, to_input
from selftrain.plumbing.errors import UserError
from selftrain.plumbing.hardware import Hardware, HardwareConfig, resolve
from selftrain.prediction import compiled as compiling
from selftrain.prediction.compiled import Forward, seconds_of
from selftrain.prediction.noised_teacher import BATCH_SIZE, NoisedTeacher
from selftrain.prediction.precision import SAMPLE, Verdict, compare
from selftrain.tables.manifest import manifest_parts
from selftrain.tables.records import label_names

FEW = 16
"""Images that are timed."""


class LabelingNetwork:
    """A network in eval mode, but for a noised teacher's noise. ``settle`` it before the first ``forward``."""

    def __init__(self, folder: Path, config: HardwareConfig, noised: NoisedTeacher | None, layer: int | None) -> None:
        """``layer`` is the feature map that embeddings are of. Raises UserError if the network has no such map."""
        self.noised, self.layer = noised, layer
        self.hardware: Hardware = resolve(config)
        self.batch_size = config.predict_batch_size if noised is None else BATCH_SIZE
        self.precision: Verdict | None = None
        self.compiled: Forward | None = None
        model, _ = load_model(folder) if noised is None else noised.load(folder)
        self.classes: list[str] = label_names(folder)
        self.size, self.crop_fraction = input_square(model)
        self.mean, self.std = normalization(model)
        model = folded(model, self.size) if noised is None else model
        self.model = model.to(self.hardware.device).to(memory_format=torch.channels_last)
        if layer is not None:
            self._check_layer(layer)

    @property
    def num_features(self) -> int:
        """Numbers of an embedding."""
        return int(self.model.num_features)  # type: ignore[arg-type]

    def settle(self, validation: Path, images: int, name: str) -> None:
        """Choose how so many images are labeled; the validation split tells whether labels stay."""
        self._settle_precision(validation, name)
        self._compile_if_it_pays(validation, images, name)

    def _settle_precision(self, validation: Path, name: str) -> None:
        """Go back to float32 if bf16 changes the labels of validation images."""
        if self.precision is not None or not self.hardware.bf16:
            return
        self.precision = Verdict(0)
        if self.noised is not None:  # labels that change by themselves cannot be compared
            self.hardware = replace(self.hardware, bf16=False)
            return
        if not manifest_parts(validation):
            return
        single = replace(self.hardware, bf16=False)
        self.precision = compare(
            self._sample(validation),
            lambda batch: self._labeled(batch, self.hardware, embed=False)[0],
            lambda batch: self._labeled(batch, single, embed=False)[0],
        )
        print(f"predict {name}: {self.precision}")
        if not self.precision.agrees:
            self.hardware = single

    def _sample(self, validation: Path) -> Iterator[torch.Tensor]:
        """Batches of validation images that two ways to label are compared on."""
        index = load_index(validation)
        rows = np.linspace(0, len(index) - 1, min(SAMPLE, len(index))).astype(np.int64)
        batches = in_batches(rows, self.batch_size)
        images = CleanImages(ImageLoader(index, self.hardware.caches), batches, self.size, self.crop_fraction)
        return in_order(images, range(len(batches)), workers=0)

    @torch.inference_mode()
    def _compile_if_it_pays(self, validation: Path, images: int, name: str) -> None:
        """Compile the network where it has minutes of work, and go back if labels of validation images change."""
        can_be = self.hardware.device.type == "cpu" and self.noised is None and self.layer is None
        if self.compiled is not None or not can_be or not manifest_parts(validation):
            return
        batch = torch.zeros(self.batch_size, 3, self.size, self.size).to(memory_format=torch.channels_last)
        features = partial(self._features, hardware=self.hardware)
        if not isinstance(features(batch[:1]), torch.Tensor):  # an ensemble's are several
            return
        if images / FEW * seconds_of(features, batch[:1].expand(FEW, -1, -1, -1)) < compiling.PAYS:
            return
        if (made := compiling.compiled(features, batch)) is None:
            return
        verdict = compare(
            self._sample(validation),
            lambda batch: self._labeled(batch, self.hardware, False, made)[0],
            lambda batch: self._labeled(batch, self.hardware, False)[0],
        )
        self.compiled = made if verdict.agrees else None
        kept = verdict.images - verdict.changed
        print(
            f"predict {name}: {'compiled' if verdict.agrees else 'not compiled'}; {kept} of {verdict.images} "
            "validation images keep their labels"
        )

    def _features(self, inputs: torch.Tensor, hardware: Hardware) -> Any:
        with hardware.autocast():
            return self.model.forward_features(inputs)  # type: ignore[operator]

    @torch.inference_mode()
    def forward(self, images: torch.Tensor, embed: bool) -> tuple[torch.Tensor, torch.Tensor]:
        """Logits (B, C) and embeddings (B, D), where D may be 0, of images (B, H, W, 3)."""
        return self._labeled(images, self.hardware, embed, self.compiled)

    @torch.inference_mode()
    def _labeled(
        self, images: torch.Tensor, hardware: Hardware, embed: bool, compiled: Forward | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Logits (B, C) and embeddings (B, D), where D may be 0, of images (B, H, W, 3).

        The classifier works in float32: logits in bf16 are so coarse that many confidences are the same.
        """
        inputs = to_input(images, self.mean, self.std, hardware.device)
        layer_map = None
        if compiled is not None:
            features: Any = compiled(inputs)
        elif embed and self.layer is not None:
            with hardware.autocast():
                features, (layer_map,) = self.model.forward_intermediates(inputs, indices=[self.layer])  # type: ignore[operator]
        else:
            features = self._features(inputs, hardware)
        features = in_float32(features)
        logits: torch.Tensor = self.model.forward_head(features)  # type: ignore[operator]
        if layer_map is not None:  # (B, D, H, W)
            return logits, layer_map.float().mean((2, 3))
        return logits, self.model.forward_head(features, pre_logits=True) if embed else logits[:, :0]  # type: ignore[operator]

    def _check_layer(self, layer: int) -> None:
        """Raises UserError if the network has no such feature map."""
        maps = len(feature_maps(self.model, "predict.embeddings_layer"))
        if not -maps <= layer < maps:
            raise UserError(f"predict.embeddings_layer: {layer}; this network has {maps} feature maps, 0 to {maps - 1}")
