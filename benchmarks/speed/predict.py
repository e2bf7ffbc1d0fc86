"""`predict` from images to Parquet, held against bare forward passes and the loop that one would write first.

The bound: bf16, BatchNorm folded, compiled, batches in memory; no file is read or written. It is compiled before it is
timed. The first loop: Pillow and a DataLoader, float32. Pixels were kept by an earlier run, as in every later round.
"""

import contextlib
import io
import shutil
import tempfile
from pathlib import Path

import numpy as np
import torch
import torch._inductor.config
import webdataset
from measure import QUICK, Table, photographs, take_turns, write_folders
from PIL import Image

from selftrain.corpus.ingest import ingest
from selftrain.networks.export import export_model
from selftrain.networks.folding import folded
from selftrain.networks.models import create_model, load_model
from selftrain.params.ingest import IngestConfig
from selftrain.params.predict import PredictConfig
from selftrain.plumbing.hardware import HardwareConfig, resolve
from selftrain.prediction.predict import predict

CASES = (
    [("test_resnet", 32, 32, 300)]
    if QUICK
    else [("test_resnet", 32, 32, 20000), ("wide_resnet28_2", 32, 32, 4000), ("resnet18", 171, 128, 1500)]
)
"""Network, height of the files, size that it sees, images."""


def main() -> None:
    table = Table("predict")
    for name, side, size, count in CASES:
        # Kept pixels lie under the working folder.
        with tempfile.TemporaryDirectory() as scratch, contextlib.chdir(scratch):
            measure(table, name, side, size, count)
    table.write()


def measure(table: Table, name: str, side: int, size: int, count: int) -> None:
    """One network."""
    config = IngestConfig.model_validate(write_folders(Path("images"), photographs(count, side)))
    with contextlib.redirect_stdout(io.StringIO()):
        ingest(config, 0, Path("corpus"))
    export_model(create_model(name, 2, size), Path("model"), classes=[*"ab"], image_size=size, crop_fraction=1.0)
    machine = HardwareConfig(device="cpu", workers=0)
    resolve(machine)
    model = load_model(Path("model"))[0].to(memory_format=torch.channels_last)
    batch = torch.rand(256, 3, size, size).to(memory_format=torch.channels_last)
    torch._inductor.config.freezing = True
    compiled = folded(model, size).bfloat16()
    if not QUICK:  # half a minute
        compiled = torch.compile(compiled)
    half = batch.bfloat16()

    def bound() -> None:
        with torch.no_grad():
            for _ in range(count // 256):
                compiled(half).float().softmax(dim=1)

    def first_loop() -> None:
        def squared(image: Image.Image) -> torch.Tensor:
            pixels = np.asarray(image.resize((size, size), Image.Resampling.BILINEAR))
            return (torch.from_numpy(pixels.copy()).permute(2, 0, 1).float() / 255 - 0.5) / 0.25

        shards = sorted(str(path) for path in Path("corpus/unlabeled").glob("*.tar"))
        images = webdataset.WebDataset(shards, shardshuffle=False).decode("pilrgb").to_tuple("jpg").map_tuple(squared)
        with torch.inference_mode():
            for (tensors,) in torch.utils.data.DataLoader(images, batch_size=256):
                model(tensors).softmax(dim=1)

    def ours() -> None:
        shutil.rmtree("table", ignore_errors=True)
        with contextlib.redirect_stdout(io.StringIO()):
            predict(Path("model"), Path("corpus"), ["unlabeled"], Path("table"), PredictConfig(), 0, machine)

    bound()
    ours()
    names = {"ours": ours, "bf16, folded, compiled, no loading": bound, "a first loop": first_loop}
    seconds = take_turns(names, 1 if QUICK else 3)
    seconds["bf16, folded, compiled, no loading"] *= count / (count // 256 * 256)
    table.compare(f"{name}, {size} pixels", count, "ours", seconds, "images/s")


if __name__ == "__main__":
    main()
