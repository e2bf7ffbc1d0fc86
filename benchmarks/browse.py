"""How long FiftyOne takes to build, build again and open with many images shown.

    python benchmarks/browse.py --images 100000

A made-up pool of that many small images, a teacher and two rounds with made-up predictions and embeddings, and views
that show every image. In a temporary folder with a database of its own; the App is opened in Debian's chromium.
"""

import argparse
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from selftrain.params.pipeline import StagesConfig

CLASSES = [f"class {number}" for number in range(10)]
PIPELINE = "noisy_student"
PARAMS = f"""
pipeline: {PIPELINE}
corpus: data/corpus
corrections: corrections.parquet
runs: [teacher, student1, student2]
tested: {{}}
stages: {{{", ".join(f"{stage}: []" for stage in StagesConfig.model_fields)}}}
supervised: {{teacher: {{}}}}
rounds: {{student1: {{teacher: teacher}}, student2: {{teacher: student1}}}}
browse: {{dataset: selftrain-benchmark, images_per_view: 10000000}}
"""
LABELED_PER_CLASS = 20


def make_project(folder: Path, count: int) -> None:
    """Images, corpus, prediction tables, selections."""
    from selftrain.corpus.ingest import ingest
    from selftrain.params.ingest import IngestConfig
    from selftrain.params.select import SelectConfig
    from selftrain.selection.select import select
    from selftrain.tables.embeddings import Embeddings, embeddings_folder, write_embeddings
    from selftrain.tables.manifest import iter_manifest
    from selftrain.tables.predictions import PredictionPart, write_part

    rng = np.random.default_rng(0)
    _write(folder / "images" / "pool", count, rng)
    for split in ("labeled", "validation", "test"):
        for name in CLASSES:
            _write(folder / "images" / split / name, LABELED_PER_CLASS, rng)
    splits = {split: {"images": split} for split in ("labeled", "validation", "test")} | {
        "unlabeled": {"images": "pool"}
    }
    config = {"root": str(folder / "images"), "images_per_shard": 10000, "near_duplicates": False, **splits}
    corpus = folder / "data" / "corpus"
    ingest(IngestConfig.model_validate(config), 0, corpus)
    predictions = folder / "predictions" / PIPELINE
    for run in ("teacher", "student1", "student2"):
        for split in ("unlabeled", "validation", "test"):
            for shard, table in iter_manifest(corpus / split, ["key"]):
                rows = table.num_rows
                log_probs = np.log(rng.dirichlet(np.full(10, 0.1), rows) + 1e-6).astype(np.float16)
                arrays = (log_probs.argmax(1).astype(np.int32), np.exp(log_probs.max(1)).astype(np.float32), log_probs)
                part = PredictionPart(table["key"].to_numpy(), *arrays)
                write_part(predictions / run / split, shard, part, CLASSES, run)
                if split == "unlabeled":
                    vectors = rng.normal(size=(rows, 64)).astype(np.float16)
                    write_embeddings(embeddings_folder(predictions / run), shard, Embeddings(part.keys, vectors), run)
    for round_, teacher in (("student1", "teacher"), ("student2", "student1")):
        table = predictions / teacher / "unlabeled"
        select(SelectConfig(threshold=0.5), 0, table, corpus, folder / "selections" / PIPELINE / round_)
    (folder / "params.yaml").write_text(PARAMS)


def _write(folder: Path, count: int, rng: np.random.Generator) -> None:
    folder.mkdir(parents=True)
    for number in range(count):
        pixels = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number:07d}.png")


def seconds_to_open(folder: Path, environment: dict[str, str]) -> tuple[float, float]:
    """Until the App shows the first images of the whole dataset, and then of a saved view."""
    from playwright.sync_api import sync_playwright

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = subprocess.Popen(
        [sys.executable, "-m", "selftrain", "browse", "--port", str(port)], cwd=folder, env=environment,
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert server.stdout is not None
    for line in server.stdout:
        if "FiftyOne App:" in line:
            break
    times = []
    with sync_playwright() as playwright:
        arguments = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=arguments)
        page = browser.new_page(viewport={"width": 1500, "height": 950})
        page.set_default_timeout(180_000)
        for path in ("", "?view=student2-teacher-and-student-disagree"):
            started = time.monotonic()
            page.goto(f"http://127.0.0.1:{port}/datasets/selftrain-benchmark{path}")
            page.locator('[data-cy="looker"]').first.wait_for()
            times.append(time.monotonic() - started)
        browser.close()
    server.terminate()
    server.wait()
    return times[0], times[1]


def main() -> None:
    """Print the times."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=100_000)
    count = parser.parse_args().images
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        make_project(folder, count)
        environment = os.environ | {"FIFTYONE_DATABASE_DIR": str(folder / "mongo"), "FIFTYONE_DO_NOT_TRACK": "true"}
        for what in ("build", "build again"):
            started = time.monotonic()
            command = [sys.executable, "-m", "selftrain", "browse", "--build-only"]
            printed = subprocess.run(
                command, cwd=folder, env=environment, check=True, capture_output=True, text=True
            ).stdout
            print(f"{what}: {time.monotonic() - started:.0f} s", flush=True)
        print(printed.strip().splitlines()[-1])
        whole, view = seconds_to_open(folder, environment)
        print(f"open: {whole:.1f} s to the first images, {view:.1f} s to those of a view that compares two fields")


if __name__ == "__main__":
    main()
