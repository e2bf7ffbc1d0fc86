"""The stage ``robustness``: one run through every suite, condition by condition, into its own tables.

Conditions are the same for every run (their random numbers come from the seed and the image's key), so runs are
compared image by image. A killed stage goes on with the tables that are missing.
"""

import hashlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from selftrain.code import code_digest
from selftrain.corpus.manifest import manifest_digest
from selftrain.counters import mixed_int
from selftrain.errors import UserError
from selftrain.evaluation.robustness.adversarial import fgsm, pgd
from selftrain.evaluation.robustness.config import RobustnessConfig
from selftrain.evaluation.robustness.corruptions import CORRUPTIONS, SEVERITIES, corrupt
from selftrain.evaluation.robustness.images import Condition, UnderCondition, corruption_folder, folder_batches, sampled
from selftrain.evaluation.robustness.perturbations import MOST_FRAMES, PERTURBATIONS, frames
from selftrain.evaluation.robustness.subject import Subject
from selftrain.evaluation.robustness.table import made_from, write_table
from selftrain.files import read_json, write_json
from selftrain.hardware import HardwareConfig
from selftrain.progress import progress_bar
from selftrain.training.clean_images import CleanImages, in_batches
from selftrain.training.config import NoiseConfig
from selftrain.training.loading import ImageIndex, ImageLoader, load_index
from selftrain.training.noised_images import NoisedImages
from selftrain.training.workers import in_order

CODE = (
    "corpus/decode.py",
    "corpus/keys.py",
    "corpus/manifest.py",
    "corpus/reader.py",
    "corpus/sources.py",
    "corpus/transforms.py",
    "counters.py",
    "evaluation/robustness/adversarial.py",
    "evaluation/robustness/config.py",
    "evaluation/robustness/corruptions.py",
    "evaluation/robustness/images.py",
    "evaluation/robustness/perturbations.py",
    "evaluation/robustness/subject.py",
    "evaluation/robustness/suites.py",
    "evaluation/robustness/table.py",
    "evaluation/robustness/textures.py",
    "training/clean_images.py",
    "training/config.py",
    "training/ensemble.py",
    "training/loading.py",
    "training/models.py",
    "training/wide_resnet.py",
    "training/noised_images.py",
    "training/randaugment.py",
    "training/views.py",
    "training/workers.py",
)
"""Code that decides what the tables hold: what dvc.yaml has for ``robustness``."""

SEQUENCE_BYTES = 2**26
"""Of the frames that a loader worker makes at a time."""

Columns = dict[str, NDArray[np.generic]]


def run_suites(
    model: Path, corpus: Path, config: RobustnessConfig, seed: int, machine: HardwareConfig, out: Path
) -> None:
    """Write every table of a run; those that are there and were made from the same stay.

    Raises UserError for other classes than the corpus's and for folders that are not there.
    """
    subject = Subject(model, machine)
    if subject.classes != read_json(corpus / "classes.json", "dvc repro ingest"):
        raise UserError(f"{model}: was trained on other classes than {corpus} has; train it again")
    out.mkdir(parents=True, exist_ok=True)
    suites = Suites(subject, corpus, config, seed, machine.predict_batch_size)
    images = {split: manifest_digest(corpus / split) for split in ("validation", "test")}
    made = [subject.digest, code_digest(CODE), seed, images, config.images, config.image_size]
    wanted: dict[Path, Callable[[], None]] = {}
    for suite, name, parameters, make in suites.conditions():
        stamp = hashlib.sha256(repr([*made, parameters]).encode()).hexdigest()[:32]
        path = out / suite / f"{name}.parquet"
        wanted[path] = partial(_write, path, make, stamp)
    for path in set(out.rglob("*.parquet")) - wanted.keys():
        path.unlink()
    with progress_bar(f"robustness {out.name}", total=len(wanted)) as advance:
        for write in wanted.values():
            write()
            advance()
    about = read_json(model / "run.json", "dvc repro")
    write_json(out / "run.json", about | {"robustness_size": suites.size})


def _write(path: Path, make: Callable[[], Columns], stamp: str) -> None:
    if made_from(path) != stamp:
        write_table(path, make(), stamp)


class Suites:
    """The conditions of one run."""

    def __init__(self, subject: Subject, corpus: Path, config: RobustnessConfig, seed: int, batch_size: int) -> None:
        self.subject, self.config, self.seed, self.batch_size = subject, config, seed, batch_size
        self.size = config.image_size or subject.size
        self.test = sampled(load_index(corpus / "test"), config.images, seed)
        self.validation = load_index(corpus / "validation")

    def conditions(self) -> Iterator[tuple[str, str, Any, Callable[[], Columns]]]:
        """(suite, name, parameters that it depends on, what makes its table)."""
        config = self.config
        if "corruptions" in config.suites:
            for name in CORRUPTIONS:
                folder = config.corruptions_folder
                yield "corruptions", name, folder, partial(self.corruption, name)
        if "perturbations" in config.suites:
            for name in PERTURBATIONS:
                yield "perturbations", name, None, partial(self.perturbation, name)
        if "adversarial" in config.suites:
            yield "adversarial", "fgsm", config.fgsm, partial(self.attack, fgsm, config.fgsm)
            steps = partial(pgd, steps=config.pgd_steps)
            yield "adversarial", "pgd", (config.pgd, config.pgd_steps), partial(self.attack, steps, config.pgd)
        if "randaugment" in config.suites:
            for name, operations in (("crop_and_flip", 0), ("randaugment", config.randaugment_ops)):
                noise = config.views(operations)
                yield "randaugment", name, (noise, config.passes), partial(self.passes, noise)
        for name, folder in config.folders.items():
            yield "folders", name, folder, partial(self.folder, folder)

    def corruption(self, name: str) -> Columns:
        """One corruption at every severity."""
        folder = self.config.corruptions_folder
        if folder is None:
            return _stacked(
                self._under(partial(corrupt, name=name, severity=severity, seed=self.seed), severity)
                for severity in SEVERITIES
            )
        return _stacked(
            self._from_folder(corruption_folder(folder, name, severity), severity, 1.0, log_probs=False)
            for severity in SEVERITIES
        )

    def perturbation(self, name: str) -> Columns:
        """One perturbation, frame by frame."""

        def sequence(images: NDArray[np.uint8], keys: NDArray[np.int64]) -> NDArray[np.uint8]:
            return np.stack(list(frames(images, name, keys, self.seed)))

        found: list[Columns] = []
        frames_of_an_image = MOST_FRAMES * 3 * self.size**2
        batches = in_batches(np.arange(len(self.test)), max(1, min(32, SEQUENCE_BYTES // frames_of_an_image)))
        for rows, shown in zip(batches, self._shown(self.test, batches, sequence), strict=True):
            for frame, images in enumerate(shown):
                found.append(_columns(self.test, rows, frame, self.subject.log_probs(images)))
        return _stacked(iter(found))

    def attack(self, attack: Callable[..., torch.Tensor], sizes: tuple[float, ...]) -> Columns:
        """One attack at every size ε."""
        found: list[Columns] = []
        device = self.subject.hardware.device
        batches = in_batches(np.arange(len(self.test)), self.batch_size)
        for rows, images in zip(batches, self._shown(self.test, batches, None), strict=True):
            inputs = (images.to(device).permute(0, 3, 1, 2).float() / 255).contiguous()
            labels = torch.from_numpy(self.test.labels[rows].astype(np.int64)).to(device)
            for size in sizes:
                attacked = attack(self.subject.network, inputs, labels, size / 255)
                with torch.inference_mode():
                    log_probs = self.subject.network(attacked).float().log_softmax(dim=1).cpu()
                found.append(_columns(self.test, rows, size, log_probs))
        return _stacked(iter(found))

    def passes(self, noise: NoiseConfig) -> Columns:
        """Seeded passes of random views over validation and test."""
        found = []
        for turn in range(self.config.passes):
            for index in (self.validation, self.test):
                batches = in_batches(np.arange(len(index)), self.batch_size)
                clean = (ImageLoader(index), batches, self.subject.size, self.subject.crop_fraction)
                views = NoisedImages(*clean, noise, (mixed_int(self.seed, turn),))
                for rows, images in zip(
                    batches, in_order(views, range(len(batches)), self._workers(batches)), strict=True
                ):
                    found.append(_columns(index, rows, turn, self.subject.log_probs(images)))
        return _stacked(iter(found))

    def folder(self, folder: str) -> Columns:
        """A labeled folder from elsewhere."""
        return self._from_folder(folder, 0, self.subject.crop_fraction, log_probs=True)

    def _under(self, condition: Condition, level: float) -> Columns:
        batches = in_batches(np.arange(len(self.test)), self.batch_size)
        return _stacked(
            _columns(self.test, rows, level, self.subject.log_probs(images))
            for rows, images in zip(batches, self._shown(self.test, batches, condition), strict=True)
        )

    def _shown(
        self, index: ImageIndex, batches: list[NDArray[np.int64]], condition: Condition | None
    ) -> Iterator[torch.Tensor]:
        loader, crop_fraction = ImageLoader(index), self.subject.crop_fraction
        if condition is None:
            shown = CleanImages(loader, batches, self.subject.size, crop_fraction)
        else:
            shown = UnderCondition(loader, batches, self.size, crop_fraction, condition)
        return in_order(shown, range(len(batches)), self._workers(batches))

    def _workers(self, batches: list[NDArray[np.int64]]) -> int:
        # Starting workers costs more than a few batches do.
        return self.subject.hardware.workers if len(batches) > 8 else 0

    def _from_folder(self, folder: str, level: float, crop_fraction: float, *, log_probs: bool) -> Columns:
        """Predictions for a labeled folder. ImageNet-C's images are cropped already: they are shown whole."""
        broken: list[str] = []
        found = []
        read = folder_batches(folder, self.subject.classes, self.subject.size, crop_fraction, self.batch_size, broken)
        for images, labels in read:
            own = self.subject.log_probs(images)
            columns = {"label": labels, "level": np.full(len(labels), level, np.float32), **_answers(own)}
            if log_probs:
                columns["log_probs"] = own.numpy().astype(np.float16)  # (B, C)
            found.append(columns)
        if not found:
            raise UserError(f"{folder}: no usable image in it ({len(broken)} broken)")
        if broken:
            print(f"{folder}: {len(broken)} broken images left out; the first is {broken[0]}")
        columns = _stacked(iter(found))
        return {"key": np.arange(len(columns["label"]), dtype=np.int64), **columns}


def _columns(index: ImageIndex, rows: NDArray[np.int64], level: float, log_probs: torch.Tensor) -> Columns:
    return {
        "key": index.keys[rows],
        "label": index.labels[rows],
        "level": np.full(len(rows), level, np.float32),
        **_answers(log_probs),
    }


def _answers(log_probs: torch.Tensor) -> Columns:
    best = log_probs.max(dim=1)
    return {"predicted": best.indices.numpy().astype(np.int32), "confidence": best.values.exp().numpy()}


def _stacked(parts: Iterator[Columns]) -> Columns:
    found = list(parts)
    return {name: np.concatenate([part[name] for part in found]) for name in found[0]}
