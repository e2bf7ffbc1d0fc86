"""The stage ``predict``: one process labels every split that a run's opinion is needed on.

From the clean image and the network in eval mode, always. Parts that are there and were made from the
same model, code and images stay, so a killed run goes on and a grown pool costs only its growth.
"""

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from selftrain.code import code_digest
from selftrain.corpus.keys import make_key, shard_of_part, split_of
from selftrain.corpus.manifest import manifest_parts
from selftrain.errors import UserError
from selftrain.files import read_json, remove_temporary_files
from selftrain.hardware import Hardware, HardwareConfig, resolve
from selftrain.predictions.table import PredictionPart, made_from, write_part
from selftrain.progress import progress_bar
from selftrain.training.clean_images import CleanImages, in_batches
from selftrain.training.loading import ImageLoader, load_index
from selftrain.training.models import load_model, to_input
from selftrain.training.workers import in_order

CODE = (
    "corpus/decode.py",
    "corpus/transforms.py",
    "predictions/predict.py",
    "training/clean_images.py",
    "training/models.py",
)
"""Code that decides what a prediction is."""


def predict(model_folder: Path, corpus: Path, splits: list[str], out: Path, config: HardwareConfig) -> None:
    """Write ``out/<split>/part-*.parquet`` for every split. Raises UserError if classes or files do not fit."""
    hardware = resolve(config)
    model, model_config = load_model(model_folder)
    classes = read_json(corpus / "classes.json", "dvc repro ingest")
    if model_config["label_names"] != classes:
        raise UserError(f"{model_folder}: was trained on other classes than {corpus} has; train it again")
    model.to(hardware.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    digest = hashlib.sha256((model_folder / "model.safetensors").read_bytes())
    digest.update((model_folder / "config.json").read_bytes())
    digest.update(code_digest(CODE).encode())
    for split in splits:
        todo = _outdated_parts(corpus / split, out / split, digest.hexdigest()[:32])
        _predict_split(
            model, model_config["pretrained_cfg"], classes, corpus / split, out / split, todo, hardware, config
        )


def _outdated_parts(split_folder: Path, out: Path, made_with: str) -> dict[int, str]:
    """Shards whose part is missing or made from something else, and what to make it from. Removes stray parts."""
    out.mkdir(parents=True, exist_ok=True)
    remove_temporary_files(out)
    wanted = {}
    for path in manifest_parts(split_folder):
        wanted[shard_of_part(path.name)] = f"{made_with}:{hashlib.sha256(path.read_bytes()).hexdigest()[:32]}"
    for part in out.glob("part-*.parquet"):
        if shard_of_part(part.name) not in wanted:
            part.unlink()
    return {shard: source for shard, source in wanted.items() if made_from(out, shard) != source}


def _predict_split(
    model: nn.Module,
    pretrained: dict,  # type: ignore[type-arg]
    classes: list[str],
    split_folder: Path,
    out: Path,
    todo: dict[int, str],
    hardware: Hardware,
    config: HardwareConfig,
) -> None:
    if not todo:
        return
    index = load_index(split_folder)
    rows_of = {shard: _rows_of_shard(index.keys, shard) for shard in todo}
    batches = [batch for rows in rows_of.values() for batch in in_batches(rows, config.predict_batch_size)]
    size, crop_fraction = pretrained["input_size"][1], pretrained["crop_pct"]
    images = CleanImages(ImageLoader(index), batches, size, crop_fraction)
    # Starting workers costs more than a few batches do.
    workers = hardware.workers if len(batches) > 8 else 0
    loader = in_order(images, range(len(batches)), workers, pin_memory=hardware.device.type == "cuda")
    with progress_bar(f"predict {out.parent.name}/{out.name}", total=sum(map(len, batches))) as advance:
        log_probs = _log_probs(model, pretrained, loader, hardware, advance)
        for shard, source in todo.items():
            rows = rows_of[shard]
            of_shard: list[NDArray[np.float32]] = []
            while sum(map(len, of_shard)) < len(rows):
                of_shard.append(next(log_probs))
            write_part(out, shard, _as_part(index.keys[rows], np.concatenate(of_shard)), classes, source)


def _rows_of_shard(keys: NDArray[np.int64], shard: int) -> NDArray[np.int64]:
    """Places of a shard's images in the index, whose keys are sorted."""
    split = split_of(int(keys[0]))
    first, end = np.searchsorted(keys, [make_key(split, shard, 0), make_key(split, shard + 1, 0)])
    return np.arange(first, end, dtype=np.int64)


@torch.inference_mode()
def _log_probs(
    model: nn.Module,
    pretrained: dict,  # type: ignore[type-arg]
    loader: Iterator[torch.Tensor],
    hardware: Hardware,
    advance: Callable[..., None],
) -> Iterator[NDArray[np.float32]]:
    """The model's log-probabilities, batch by batch, (B, C) float32."""
    assert not model.training
    for images in loader:
        inputs = to_input(images, pretrained["mean"], pretrained["std"], hardware.device)
        with hardware.autocast():
            logits = model(inputs)  # (B, C)
        yield logits.float().log_softmax(dim=1).cpu().numpy()
        advance(len(images))


def _as_part(keys: NDArray[np.int64], log_probs: NDArray[np.float32]) -> PredictionPart:
    labels = log_probs.argmax(axis=1)
    return PredictionPart(
        keys=keys,
        labels=labels.astype(np.int32),
        confidences=np.exp(log_probs[np.arange(len(labels)), labels]),
        log_probs=log_probs.astype(np.float16),
    )
