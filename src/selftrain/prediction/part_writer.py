"""A run's network, which writes parts of its prediction tables."""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from selftrain.images.clean_images import CleanImages, in_batches
from selftrain.images.index import ImageIndex, load_index
from selftrain.images.loading import ImageLoader
from selftrain.images.workers import in_order
from selftrain.plumbing.hardware import HardwareConfig
from selftrain.plumbing.locks import sole_writer
from selftrain.prediction.network import LabelingNetwork
from selftrain.prediction.noised_teacher import NoisedTeacher
from selftrain.prediction.stamps import outdated
from selftrain.tables.embeddings import Embeddings, write_embeddings
from selftrain.tables.keys import make_key, part_name, split_of
from selftrain.tables.predictions import PredictionPart, write_part

LARGEST = float(np.finfo(np.float16).max)


@dataclass(frozen=True)
class Parts:
    """Some parts of one table, which one worker writes."""

    images: Path
    """The split's folder in the corpus."""
    out: Path
    embeddings: Path | None
    """Their folder, if they are asked for."""
    noised: bool
    """Whether the teacher's own noise stays on."""
    top_k: int | None
    """How many classes of each image are kept."""
    stamps: dict[int, str]
    """Of each shard's part."""
    of_split: int
    """Images of the whole split that are to be labeled: how much work it is tells how to do it."""


@dataclass(frozen=True)
class Written:
    """What became of some parts."""

    images: int
    clamped: int
    """Numbers that float16 does not reach."""


class PartWriter:
    """A run's model, loaded once for each way that it labels."""

    def __init__(
        self,
        model_folder: Path,
        machine: HardwareConfig,
        teacher: NoisedTeacher | None,
        layer: int | None,
        advance: Callable[[int], None] | None,
    ) -> None:
        self.model_folder, self.machine, self.teacher, self.layer = model_folder, machine, teacher, layer
        self.advance = advance or (lambda images: None)
        self._networks: dict[bool, LabelingNetwork] = {}
        self._settled: set[Path] = set()
        """Tables for which a network has been settled."""

    def __call__(self, parts: Parts) -> Written:
        """Write the parts that nobody has written meanwhile."""
        folders = [parts.out, *([] if parts.embeddings is None else [parts.embeddings])]
        with contextlib.ExitStack() as locks:
            for shard in parts.stamps:
                locks.enter_context(sole_writer(parts.out / part_name(shard)))
            todo = outdated(parts.stamps, folders)
            if not todo:
                return Written(0, 0)
            network = self._network(parts)
            labels = Labels(network, self.teacher if parts.noised else None, load_index(parts.images, todo))
            return labels.write(todo, parts, self.advance)

    def _network(self, parts: Parts) -> LabelingNetwork:
        if parts.noised not in self._networks:
            teacher = self.teacher if parts.noised else None
            self._networks[parts.noised] = LabelingNetwork(self.model_folder, self.machine, teacher, self.layer)
        network = self._networks[parts.noised]
        if parts.out not in self._settled:
            network.settle(parts.images.parent / "validation", parts.of_split, parts.out.parent.name)
            self._settled.add(parts.out)
        return network


class Labels:
    """What a network says of the images of some shards."""

    def __init__(self, network: LabelingNetwork, noised: NoisedTeacher | None, index: ImageIndex) -> None:
        self.network, self.noised, self.index = network, noised, index
        self.clamped = 0

    def write(self, todo: dict[int, str], parts: Parts, advance: Callable[[int], None]) -> Written:
        """Write each shard's part; the values of ``todo`` are their stamps."""
        keys, network = self.index.keys, self.network
        rows_of = {shard: _rows_of_shard(keys, shard) for shard in todo}
        batches = [batch for rows in rows_of.values() for batch in in_batches(rows, network.batch_size)]
        outputs = self._outputs(batches, parts.embeddings is not None, advance)
        for shard, stamp in todo.items():
            of_shard: list[tuple[NDArray[np.float32], NDArray[np.float16]]] = []
            while sum(len(log_probs) for log_probs, _ in of_shard) < len(rows_of[shard]):
                of_shard.append(next(outputs))
            log_probs, vectors = (np.concatenate(arrays) for arrays in zip(*of_shard, strict=True))
            of_part = keys[rows_of[shard]]
            if parts.embeddings is not None:
                write_embeddings(parts.embeddings, shard, Embeddings(of_part, vectors), stamp)
            part = self._as_part(of_part, log_probs)
            write_part(parts.out, shard, part, network.classes, stamp, network.hardware.bf16, parts.top_k)
        return Written(len(self.index), self.clamped)

    def _outputs(
        self, batches: list[NDArray[np.int64]], embed: bool, advance: Callable[[int], None]
    ) -> Iterator[tuple[NDArray[np.float32], NDArray[np.float16]]]:
        """The model's log-probabilities (B, C) float32, batch by batch, and embeddings (B, D), where D may be 0."""
        hardware = self.network.hardware
        make = CleanImages if self.noised is None else self.noised.images
        loader = ImageLoader(self.index, hardware.caches)
        views = make(loader, batches, self.network.size, self.network.crop_fraction)
        # Starting workers costs more than a few batches do.
        workers = hardware.workers if len(batches) > 8 else 0
        # A batch's results are fetched when the next one is on its way, so that a GPU never waits for it.
        waiting: tuple[torch.Tensor, torch.Tensor] | None = None
        made = in_order(views, range(len(batches)), workers, hardware.device.type == "cuda")
        for rows, images in zip(batches, made, strict=True):
            if self.noised is not None:
                self.noised.before_batch(int(self.index.keys[rows[0]]))
            logits, vectors = self.network.forward(images, embed)
            if waiting is not None:
                yield self._fetched(*waiting)
            waiting = logits.log_softmax(dim=1), vectors
            advance(len(images))
        assert waiting is not None
        yield self._fetched(*waiting)

    def _fetched(
        self, log_probs: torch.Tensor, vectors: torch.Tensor
    ) -> tuple[NDArray[np.float32], NDArray[np.float16]]:
        return log_probs.cpu().numpy(), self._as_float16(vectors.cpu().numpy())

    def _as_part(self, keys: NDArray[np.int64], log_probs: NDArray[np.float32]) -> PredictionPart:
        labels = log_probs.argmax(axis=1)
        return PredictionPart(
            keys=keys,
            labels=labels.astype(np.int32),
            confidences=np.exp(log_probs[np.arange(len(labels)), labels]),
            log_probs=self._as_float16(log_probs),
        )

    def _as_float16(self, values: NDArray[np.float32]) -> NDArray[np.float16]:
        """Clamped, and counted, where float16 does not reach."""
        self.clamped += int(np.count_nonzero(np.abs(values) > LARGEST))
        return np.clip(values, -LARGEST, LARGEST).astype(np.float16)


def _rows_of_shard(keys: NDArray[np.int64], shard: int) -> NDArray[np.int64]:
    """Places of a shard's images in the index, whose keys are sorted."""
    split = split_of(int(keys[0]))
    first, end = np.searchsorted(keys, [make_key(split, shard, 0), make_key(split, shard + 1, 0)])
    return np.arange(first, end, dtype=np.int64)
