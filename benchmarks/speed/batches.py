"""Images to batches: a camera's files, clean batches as `predict` sees them, views as training does; one process.

Held against Pillow, decoding alone, webdataset's loader and timm's transforms. Batches and views are measured twice:
when the images are seen for the first time, and from then on, when their pixels are kept.
"""

import contextlib
import io
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import simplejpeg
import timm.data
import torch
import webdataset
from measure import QUICK, Table, photographs, take_turns, write_folders
from PIL import ExifTags, Image, ImageOps

from selftrain.corpus.ingest import ingest
from selftrain.images.clean_images import CleanImages, in_batches
from selftrain.images.decode import decode_pixels
from selftrain.images.index import load_index
from selftrain.images.loading import ImageLoader
from selftrain.images.views import view
from selftrain.params.ingest import IngestConfig
from selftrain.params.noise import NoiseConfig
from selftrain.plumbing.hardware import Caches

BATCH = 64
CASES = {"32 pixels": (32, 32, 64 if QUICK else 2048), "224 pixels of photographs": (375, 224, 16 if QUICK else 256)}
"""Height of the files, size of the batch's squares, images."""
CAMERAS = 300 if QUICK else 3000
"""Height of a camera's pictures."""


def main() -> None:
    torch.set_num_threads(1)
    decode_cameras()
    clean, noised = Table("clean batches"), Table("noised views")
    with tempfile.TemporaryDirectory() as scratch:
        for name, (side, size, count) in CASES.items():
            folder = Path(scratch) / name
            folder.mkdir()
            with contextlib.chdir(folder):  # kept pixels lie under the working folder
                measure(name, side, size, count, clean, noised)
    clean.write()
    noised.write()


def decode_cameras() -> None:
    """Pictures with EXIF, upright and on their side, and libjpeg's own scaling while it decodes."""
    table = Table("decoding")
    (picture,) = photographs(1, CAMERAS)
    for name, orientation in (("a camera's JPEG, 4000×3000", 1), ("the same, held on its side", 6)):
        exif, file = Image.Exif(), io.BytesIO()
        exif[ExifTags.Base.Orientation] = orientation
        Image.open(io.BytesIO(picture)).save(file, "JPEG", quality=88, exif=exif)
        data = file.getvalue()
        works: dict[str, Callable[[], object]] = {
            "ours": partial(decode_pixels, data),
            "Pillow": partial(by_pillow, data),
            "simplejpeg, as it lies, scaled to 224 or more": partial(
                simplejpeg.decode_jpeg, data, min_height=224, min_width=224, min_factor=1
            ),
        }
        decode_pixels(data)
        table.compare(name, 1, "ours", take_turns(works), "images/s")
    table.write()


def by_pillow(data: bytes) -> np.ndarray:
    return np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))))


def measure(name: str, side: int, size: int, count: int, clean: Table, noised: Table) -> None:
    """One case of both tables."""
    files = photographs(count, side)
    config = IngestConfig.model_validate(write_folders(Path("images"), files))
    with contextlib.redirect_stdout(io.StringIO()):
        ingest(config, 0, Path("corpus"))
    index = load_index(Path("corpus/unlabeled"))
    rows = np.arange(len(index), dtype=np.int64)

    def batches(cache_bytes: int) -> Callable[[], object]:
        loader = ImageLoader(index, Caches(cache_bytes))
        made = CleanImages(loader, in_batches(rows, BATCH), size, 1.0)
        return lambda: [made[batch] for batch in range(len(made))]

    kept = batches(2**40)
    kept()
    works = {
        "ours, kept": kept,
        "ours, first time": batches(0),
        "simplejpeg, resized by torch": lambda: [
            bare(files[start : start + BATCH], size) for start in range(0, count, BATCH)
        ],
        "webdataset": lambda: list(webdataset_batches(size)),
    }
    seconds = take_turns(works)
    for ours in ("ours, first time", "ours, kept"):
        others = {other: taken for other, taken in seconds.items() if other == ours or not other.startswith("ours")}
        clean.compare(f"{name}, {ours.partition(', ')[2]}", count, ours, others, "images/s")

    noise = NoiseConfig(random_crop=(0.3, 1.0) if side != size else None, flip=0.5, randaugment_magnitude=9)
    transform = timm.data.create_transform(
        size, is_training=True, scale=noise.random_crop or (1.0, 1.0),
        ratio=(3 / 4, 4 / 3) if side != size else (1.0, 1.0), auto_augment="rand-m9-n2-mstd0",
        interpolation="bilinear", color_jitter=None, normalize=False,
    )  # fmt: skip

    def views(cache_bytes: int) -> Callable[[], object]:
        loader = ImageLoader(index, Caches(cache_bytes))
        return lambda: [view(loader, row, "image", size, 1.0, noise, row) for row in range(count)]

    kept = views(2**40)
    kept()
    works = {
        "ours, kept": kept,
        "ours, first time": views(0),
        "timm": lambda: [np.asarray(transform(Image.open(io.BytesIO(data)).convert("RGB"))) for data in files],
    }
    seconds = take_turns(works)
    for ours in ("ours, first time", "ours, kept"):
        of_case = {ours: seconds[ours], "timm": seconds["timm"]}
        noised.compare(f"{name}, {ours.partition(', ')[2]}", count, ours, of_case, "views/s")


def bare(files: list[bytes], size: int) -> torch.Tensor:
    """The least there is to do: decode, and resize the central square."""
    batch = torch.empty(len(files), size, size, 3, dtype=torch.uint8)
    for place, data in enumerate(files):
        pixels = torch.from_numpy(simplejpeg.decode_jpeg(data))[None].permute(0, 3, 1, 2)
        side = min(pixels.shape[2:])
        top, left = (pixels.shape[2] - side) // 2, (pixels.shape[3] - side) // 2
        square = pixels[:, :, top : top + side, left : left + side]
        if side != size:
            square = torch.nn.functional.interpolate(square, size=(size, size), mode="bilinear", antialias=True)
        batch[place] = square[0].permute(1, 2, 0)
    return batch


def webdataset_batches(size: int) -> webdataset.WebLoader:
    """Webdataset over the same shards, with Pillow, as its documentation shows it."""

    def squared(image: Image.Image) -> np.ndarray:
        side = min(image.size)
        left, top = (image.width - side) // 2, (image.height - side) // 2
        return np.asarray(image.resize((size, size), Image.Resampling.BILINEAR, (left, top, left + side, top + side)))

    shards = sorted(str(path) for path in Path("corpus/unlabeled").glob("*.tar"))
    dataset = webdataset.WebDataset(shards, shardshuffle=False).decode("pilrgb").to_tuple("jpg").map_tuple(squared)
    return dataset.batched(BATCH)


if __name__ == "__main__":
    main()
