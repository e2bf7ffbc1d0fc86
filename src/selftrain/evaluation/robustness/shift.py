"""The command ``shift``: image folders again, some of them corrupted, to see what a change of domain does."""

import shutil
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image
from pydantic import Field, model_validator

from selftrain.counters import Stream, mixed_int, word
from selftrain.evaluation.robustness.corruptions import CORRUPTIONS, SEVERITIES, corrupt
from selftrain.images.decode import SUFFIXES, BrokenImage, decode
from selftrain.plumbing.errors import UserError
from selftrain.plumbing.files import atomic_folder
from selftrain.plumbing.progress import progress_bar
from selftrain.plumbing.sections import Section


class ShiftConfig(Section):
    """``shift``: which images are corrupted, and how."""

    images: str
    """A folder of image folders."""
    folders: tuple[str, ...] = Field(min_length=1)
    """Those in it that are corrupted; all else is copied."""
    corruptions: tuple[str, ...] = tuple(CORRUPTIONS)
    """Each image gets one of them, drawn by seed and name."""
    severities: tuple[Literal[1, 2, 3, 4, 5], ...] = SEVERITIES  # type: ignore[assignment]
    """And one of these strengths."""
    size: int | None = Field(default=None, ge=32)
    """Pixels a side to which images are brought before: corruptions need some. Null: as large as they are, square."""

    @model_validator(mode="after")
    def _known(self) -> "ShiftConfig":
        if unknown := set(self.corruptions) - set(CORRUPTIONS):
            raise ValueError(f"`corruptions`: there is no {sorted(unknown)[0]!r}; known: {', '.join(CORRUPTIONS)}")
        if not self.corruptions or not self.severities:
            raise ValueError("give at least one of `corruptions` and of `severities`")
        return self


def write_shifted(config: ShiftConfig, seed: int, out: Path) -> int:
    """Write ``out``, the folder again, corrupted where it is to be; return how many images were.

    Names stay, so that a ``truth.csv`` goes on telling the truth. Raises UserError for folders that are not there or
    hold no images.
    """
    source = Path(config.images)
    for folder in config.folders:
        if not (source / folder).is_dir():
            raise UserError(f"shift.folders: there is no folder {source / folder}")
    with atomic_folder(out) as staged:
        shutil.copytree(source, staged)
        paths = [
            path
            for folder in config.folders
            for path in sorted((staged / folder).rglob("*"))
            if path.suffix.lower() in SUFFIXES and path.is_file()
        ]
        broken = 0
        with progress_bar("shift", total=len(paths)) as advance:
            for path in paths:
                try:
                    _corrupt_file(path, path.relative_to(staged).as_posix(), config, seed)
                except BrokenImage as error:
                    broken += 1
                    print(f"{path.relative_to(staged)}: {error}; copied as it is, for `ingest` to put into quarantine")
                advance()
        if len(paths) == broken:
            raise UserError(f"shift.folders: {', '.join(config.folders)} of {source} hold no images")
    print(f"{out}: {len(paths) - broken:,} images corrupted, {broken} broken ones left")
    return len(paths) - broken


def _corrupt_file(path: Path, name: str, config: ShiftConfig, seed: int) -> None:
    image = decode(path.read_bytes())
    side = config.size or min(image.size)
    square = np.asarray(image.resize((side, side), Image.Resampling.BICUBIC))
    uniform = mixed_int(seed, Stream.SHIFT, word(name))
    corruption = config.corruptions[uniform % len(config.corruptions)]
    severity = config.severities[uniform // len(config.corruptions) % len(config.severities)]
    changed = corrupt(square[None], np.array([uniform % 2**62]), corruption, severity, seed)[0]
    Image.fromarray(changed).save(path, quality=95)
