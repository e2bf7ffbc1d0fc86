"""How near each stage comes to what bounds it: ratios, measured in one run on one machine.

    make bench
    make bench QUICK=1      # on a few images, to see that it runs

Each row times a stage and, on the same images, the least that it could do: a bare decode loop, a bare forward pass.
`selecting.py` has the table's stage. A ratio of 1 is the bound; machines differ, ratios hardly.
"""

import contextlib
import io
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from selftrain.corpus.ingest import ingest
from selftrain.images.decode import decode
from selftrain.images.transforms import clean
from selftrain.images.views import view
from selftrain.networks.export import export_model
from selftrain.networks.models import create_model
from selftrain.params.ingest import IngestConfig
from selftrain.params.noise import NoiseConfig
from selftrain.params.predict import PredictConfig
from selftrain.plumbing.hardware import HardwareConfig
from selftrain.prediction.predict import predict

IMAGES, SIDE, CLASSES = 250 if os.environ.get("QUICK") else 4000, 96, ["a", "b"]


def no_other(uniform: float) -> Image.Image:
    """For policies without Sample Pairing."""
    raise AssertionError(uniform)


def seconds(work: Callable[[], object]) -> float:
    """Wall-clock time of one call."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def row(stage: str, bound: str, stage_seconds: float, bound_seconds: float, count: int) -> None:
    """Print one line of the table."""
    does, could_do = count / stage_seconds, count / bound_seconds
    print(f"| {stage} | {does:,.0f}/s | {bound} | {could_do:,.0f}/s | {does / could_do:.2f} |")


def photos(folder: Path) -> list[bytes]:
    """Random smooth JPEGs: a pool, and the few labeled ones that ingest asks for."""
    rng = np.random.default_rng(0)
    made = []
    for number in range(IMAGES):
        coarse = Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8))
        file = io.BytesIO()
        coarse.resize((SIDE, SIDE), Image.Resampling.BICUBIC).save(file, "JPEG")
        made.append(file.getvalue())
        path = folder / "pool" / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(made[-1])
    for split in ("labeled", "validation", "test"):
        for place, name in enumerate(CLASSES):
            path = folder / split / name / "0.jpg"
            path.parent.mkdir(parents=True)
            path.write_bytes(made[place])
    return made


def main() -> None:
    """Print the table."""
    torch.set_num_threads(1)
    print(f"torch {torch.__version__}, {torch.get_num_threads()} thread\n")
    print("| stage | does | bound | could do | ratio |\n| --- | ---: | --- | ---: | ---: |")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        files = photos(folder)
        splits = {split: {"images": split} for split in ("labeled", "validation", "test")}
        values = {"root": str(folder), "unlabeled": {"images": "pool"}, **splits}
        config = IngestConfig.model_validate(values)
        decoding = seconds(lambda: [decode(data) for data in files])
        with contextlib.redirect_stdout(io.StringIO()):
            ingesting = seconds(lambda: ingest(config, 0, folder / "corpus"))
        row("ingest", "decoding, one thread", ingesting, decoding, IMAGES)

        images = [decode(data) for data in files]
        resizing = seconds(lambda: [clean(image, 64) for image in images])
        noise = NoiseConfig(random_crop=(0.3, 1.0))
        noising = seconds(
            lambda: [view(image, "image", 64, 1.0, noise, place, no_other) for place, image in enumerate(images)]
        )
        row("a noised view", "a bare resize", noising, resizing, IMAGES)

        model = create_model("test_resnet", 2, 32).eval().to(memory_format=torch.channels_last)
        export_model(model, folder / "model", classes=CLASSES, image_size=64, crop_fraction=1.0)
        model.to(memory_format=torch.channels_last)
        batch = torch.randn(250, 3, 64, 64).to(memory_format=torch.channels_last)
        with torch.inference_mode():
            model(batch)
            forward = seconds(lambda: [model(batch) for _ in range(IMAGES // 250)])
        hardware = HardwareConfig(device="cpu", threads=1, workers=1)
        predicting = seconds(
            lambda: predict(
                folder / "model", folder / "corpus", ["unlabeled"], folder / "p", PredictConfig(), 0, hardware
            )
        )
        row("predict", "a bare forward pass", predicting, forward, IMAGES)


if __name__ == "__main__":
    main()
