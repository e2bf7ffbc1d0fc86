"""The stage ``predict``: one process labels every split that a run's prediction is needed on.

From the clean image and the network in eval mode, unless `predict.noise` says otherwise for the pool. Parts that
are there and were made from the same model, code and images stay, so a killed run goes on and a grown pool costs
only its growth.
"""

import contextlib
import hashlib
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from selftrain.code import code_digest
from selftrain.images.clean_images import CleanImages, in_batches
from selftrain.images.index import ImageIndex, load_index
from selftrain.images.loading import ImageLoader
from selftrain.images.workers import in_order
from selftrain.params.predict import PredictConfig
from selftrain.plumbing.errors import UserError
from selftrain.plumbing.files import TEMPORARY_PREFIX, read_json
from selftrain.plumbing.hardware import HardwareConfig
from selftrain.plumbing.locks import has_writer, sole_writer
from selftrain.plumbing.progress import progress_bar
from selftrain.plumbing.room import check_room
from selftrain.prediction.network import LabelingNetwork
from selftrain.prediction.noised_teacher import NoisedTeacher
from selftrain.tables.embeddings import FOLDER, Embeddings, embeddings_folder, write_embeddings
from selftrain.tables.keys import make_key, part_name, shard_of_part, split_of
from selftrain.tables.manifest import images_in, manifest_parts, part_path
from selftrain.tables.predictions import PredictionPart, made_from, made_from_text, write_part
from selftrain.tables.records import check_weights

KEY_BYTES = 32
"""Of a row beside its arrays."""
LARGEST = float(np.finfo(np.float16).max)
LOCKED_TOGETHER = 64
"""Parts that a process claims at once: loader workers go on from one of them to the next."""


def predict(
    model_folder: Path,
    corpus: Path,
    splits: Sequence[str],
    out: Path,
    config: PredictConfig,
    seed: int,
    machine: HardwareConfig,
    rank: int = 0,
    world_size: int = 1,
) -> None:
    """Write ``out/<split>/part-*.parquet`` for every split, and ``out/embeddings/<split>`` if they are asked for.

    Of ``world_size`` processes the ``rank``-th writes every so many-th part. A part has one writer at a time, so
    processes that were given the same parts wait for one another and make nothing twice.

    Raises UserError if classes or files do not fit.
    """
    teacher = NoisedTeacher(model_folder, config.noise, seed) if config.noise else None
    predictors: dict[bool, Predictor] = {}
    classes = read_json(corpus / "classes.json", "dvc repro ingest")
    for split in splits:
        noised = teacher is not None and split == "unlabeled"
        noise = teacher if noised else None
        predictor = predictors.get(noised) or Predictor(
            model_folder, machine, noise, rank, world_size, config.embeddings_layer
        )
        predictors[noised] = predictor
        if predictor.network.classes != classes:
            raise UserError(f"{model_folder}: was trained on other classes than {corpus} has; train it again")
        embeddings = embeddings_folder(out, split) if config.embeddings else None
        predictor.predict_split(corpus / split, out / split, embeddings)
    if not config.embeddings and rank == 0:
        shutil.rmtree(out / FOLDER, ignore_errors=True)


class Predictor:
    """A run's model, ready to label splits."""

    def __init__(
        self,
        model_folder: Path,
        config: HardwareConfig,
        noised: NoisedTeacher | None = None,
        rank: int = 0,
        world_size: int = 1,
        layer: int | None = None,
    ) -> None:
        self.network = LabelingNetwork(model_folder, config, noised, layer)
        self.rank, self.world_size = rank, world_size
        self.noised = noised
        self.clamped = 0
        self.weights = check_weights(model_folder)
        digest = hashlib.sha256((model_folder / "config.json").read_bytes())
        digest.update(code_digest("predict").encode())
        if noised is not None:
            policy = code_digest("predict", [f"images.policies.{noised.config.randaugment_policy}"])
            digest.update(f"{noised.noises} {noised.seed} {noised.config} {policy}".encode())
        if layer is not None:
            digest.update(f"embeddings_layer {layer}".encode())
        self.made_with = digest.hexdigest()[:32]

    def predict_split(self, split_folder: Path, out: Path, embeddings: Path | None = None) -> None:
        """Bring a split's prediction table up to date, shard by shard, and its embeddings if they have a folder."""
        folders = [out] if embeddings is None else [out, embeddings]
        todo = self._outdated(self._wanted(split_folder, folders), folders)
        if todo:
            images = sum(images_in(part_path(split_folder, shard)) for shard in todo)
            width = len(self.network.classes) + (0 if embeddings is None else self.network.num_features)
            check_room(out, images * (KEY_BYTES + 2 * width), f"predictions of {images:,} images")
            self.network.settle(split_folder.parent / "validation", images, out.parent.name)
        for start in range(0, len(todo), LOCKED_TOGETHER):
            group = dict(list(todo.items())[start : start + LOCKED_TOGETHER])
            with contextlib.ExitStack() as locks:
                for shard in group:
                    locks.enter_context(sole_writer(out / part_name(shard)))
                # Another process may have made some of them meanwhile.
                group = self._outdated(group, folders)
                if group:
                    self._predict_parts(group, load_index(split_folder, group), out, embeddings)
        if self.clamped:
            print(f"{out}: {self.clamped:,} numbers beyond float16 became ±{LARGEST:,.0f}, its largest")
            self.clamped = 0

    def _predict_parts(self, todo: dict[int, str], index: ImageIndex, out: Path, embeddings: Path | None) -> None:
        """Write the parts of some shards; the values of ``todo`` are their stamps."""
        rows_of = {shard: _rows_of_shard(index.keys, shard) for shard in todo}
        batches = [batch for rows in rows_of.values() for batch in in_batches(rows, self.network.batch_size)]
        with progress_bar(f"predict {out.parent.name}/{out.name}", total=sum(map(len, batches))) as advance:
            outputs = self._outputs(index, batches, embeddings is not None, advance)
            for shard, made_from_ in todo.items():
                keys = index.keys[rows_of[shard]]
                of_shard: list[tuple[NDArray[np.float32], NDArray[np.float16]]] = []
                while sum(len(log_probs) for log_probs, _ in of_shard) < len(keys):
                    of_shard.append(next(outputs))
                log_probs, vectors = (np.concatenate(arrays) for arrays in zip(*of_shard, strict=True))
                if embeddings is not None:
                    write_embeddings(embeddings, shard, Embeddings(keys, vectors), made_from_)
                write_part(
                    out,
                    shard,
                    self._as_part(keys, log_probs),
                    self.network.classes,
                    made_from_,
                    self.network.hardware.bf16,
                )

    def _wanted(self, split_folder: Path, folders: list[Path]) -> dict[int, str]:
        """This process's shards, and the stamps of their parts. The first process removes stray parts."""
        wanted = {}
        for path in manifest_parts(split_folder):
            images = hashlib.sha256(path.read_bytes()).hexdigest()[:32]
            wanted[shard_of_part(path.name)] = made_from_text(self.weights, self.made_with, images)
        for folder in folders if self.rank == 0 else ():
            folder.mkdir(parents=True, exist_ok=True)
            # A temporary file belongs to a killed process, or to one that holds its part's lock.
            for leftover in folder.glob(f"{TEMPORARY_PREFIX}*"):
                if not has_writer(folders[0] / leftover.name[leftover.name.index("part-") :]):
                    leftover.unlink(missing_ok=True)
            for part in folder.glob("part-*.parquet"):
                if shard_of_part(part.name) not in wanted:
                    part.unlink()
        return dict(list(wanted.items())[self.rank :: self.world_size])

    @staticmethod
    def _outdated(wanted: dict[int, str], folders: list[Path]) -> dict[int, str]:
        """Of the shards, those of which a part is missing or has another stamp."""
        return {
            shard: stamp
            for shard, stamp in wanted.items()
            if any(made_from(folder, shard) != stamp for folder in folders)
        }

    def _outputs(
        self, index: ImageIndex, batches: list[NDArray[np.int64]], embed: bool, advance: Callable[..., None]
    ) -> Iterator[tuple[NDArray[np.float32], NDArray[np.float16]]]:
        """The model's log-probabilities (B, C) float32, batch by batch, and embeddings (B, D), where D may be 0."""
        make = CleanImages if self.noised is None else self.noised.images
        views = make(
            ImageLoader(index, self.network.hardware.caches),
            batches,
            self.network.size,
            self.network.crop_fraction,
        )
        # Starting workers costs more than a few batches do.
        workers = self.network.hardware.workers if len(batches) > 8 else 0
        on_cuda = self.network.hardware.device.type == "cuda"
        # A batch's results are fetched when the next one is on its way, so that a GPU never waits for it.
        waiting: tuple[torch.Tensor, torch.Tensor] | None = None
        for rows, images in zip(batches, in_order(views, range(len(batches)), workers, on_cuda), strict=True):
            if self.noised is not None:
                self.noised.before_batch(int(index.keys[rows[0]]))
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
