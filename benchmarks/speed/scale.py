"""Time and peak memory of every stage that reads tables, over their length.

    python benchmarks/speed/scale.py                        # 10⁵ to 10⁷ rows
    python benchmarks/speed/scale.py --rows 100000000       # needs 15 GB of disk

Manifests, predictions of ten classes, and selections are made up; images are not. Each stage runs in a process of its
own, so that its peak is its own; that of a process which imports the same and does nothing is taken off.
"""

import argparse
import json
import multiprocessing
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
from measure import OUT, QUICK, machine

from selftrain.tables.keys import make_key, shard_name
from selftrain.tables.manifest import part_path
from selftrain.tables.parquet import write_arrow, write_frame
from selftrain.tables.predictions import PredictionPart, write_part

CLASSES = [str(label) for label in range(10)]
ROWS_A_PART = 100_000
IMPORTS = """
import contextlib, io, resource, sys
from pathlib import Path
from selftrain.evaluation.examples import select_examples
from selftrain.evaluation.pseudo_labels import flips, tally
from selftrain.images.index import load_index
from selftrain.images.order import stream
from selftrain.params.select import SelectConfig
from selftrain.selection.select import select
from selftrain.tables.predictions import made_from_digest
from selftrain.training.pseudo_labels import load_pseudo_labels
import numpy as np, time
corpus, table, teacher, selection = Path("corpus"), Path("table"), Path("teacher"), Path("selection")
truth = corpus / "truth.parquet"
quiet = contextlib.redirect_stdout(io.StringIO())
began = time.perf_counter()
"""
REPORT = """
unit = 1 if sys.platform == "darwin" else 1024
print(time.perf_counter() - began, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit)
"""
STAGES = {
    "nothing": "",
    "select": "with quiet: select(SelectConfig(threshold=0.5), 0, table, corpus, selection)",
    "index of the images": "load_index(corpus / 'unlabeled')",
    "pseudo-labels to train on": "load_pseudo_labels(corpus / 'unlabeled', selection, table)",
    "1,000 batches' order": "[stream(step * 256, 256, {rows}, 0) for step in range(1000)]",
    "evaluate: counts": "tally(selection, truth)",
    "evaluate: flips": "flips(table, teacher)",
    "evaluate: examples": "select_examples(selection, None, truth, 24)",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[20_000] if QUICK else [10**5, 10**6, 10**7])
    options = parser.parse_args()
    results = []
    print("| rows | stage | s | peak, MiB |\n| ---: | --- | ---: | ---: |")
    for rows in options.rows:
        with tempfile.TemporaryDirectory() as scratch:
            write_tables(Path(scratch), rows)
            imported = 0.0
            for stage, code in STAGES.items():
                program = IMPORTS + code.replace("{rows}", str(rows)) + REPORT
                ended = subprocess.run(
                    [sys.executable, "-c", program], cwd=scratch, capture_output=True, text=True, check=False
                )
                if ended.returncode:
                    raise SystemExit(f"{stage}: {ended.stderr}")
                seconds, peak = map(float, ended.stdout.splitlines()[-1].split())  # after a progress bar, perhaps
                if stage == "nothing":
                    imported = peak
                    continue
                results.append({"rows": rows, "stage": stage, "seconds": seconds, "peak": peak - imported})
                print(f"| {rows:,} | {stage} | {seconds:.2f} | {(peak - imported) / 2**20:,.0f} |", flush=True)
    OUT.mkdir(parents=True, exist_ok=True)
    (OUT / "scale.json").write_text(json.dumps({"machine": machine(), "quick": QUICK, "rows": results}, indent=2))


def write_tables(folder: Path, rows: int) -> None:
    """A corpus' manifest and the prediction tables of two runs, without the images."""
    began = time.perf_counter()
    starts = range(0, rows, ROWS_A_PART)
    with ProcessPoolExecutor(mp_context=multiprocessing.get_context("spawn")) as processes:
        copies = np.concatenate([*processes.map(partial(write_shard, folder, rows), starts, chunksize=16)])
    columns = pa.table({"key": copies, "kind": ["duplicate"] * len(copies), "match": ["bytes"] * len(copies)})
    write_arrow(columns, folder / "corpus" / "duplicates.parquet")
    write_frame(pl.DataFrame(schema={"key": pl.Int64, "label": pl.Int32}), folder / "corpus" / "truth.parquet")
    (folder / "corpus" / "classes.json").write_text(json.dumps(CLASSES))
    print(f"made up in {time.perf_counter() - began:.0f} s", file=sys.stderr)


def write_shard(folder: Path, rows: int, start: int) -> np.ndarray:
    """The tables of a shard's images from the ``start``-th on; returns the keys of those that are copies."""
    shard, count = start // ROWS_A_PART, min(ROWS_A_PART, rows - start)
    rng = np.random.default_rng(shard)
    keys = make_key("unlabeled", shard, 0) + np.arange(count)
    manifest = pa.table(
        {
            "key": keys,
            "shard": pa.array([shard_name(shard)] * count),
            "offset": np.arange(count, dtype=np.int64) * 30_000,
            "size": rng.integers(1000, 30_000, count, dtype=np.int32),
            "label": pa.nulls(count, pa.int32()),
            "xxh3": rng.integers(0, 2**62, count, dtype=np.int64),
        }
    )
    write_arrow(manifest, part_path(folder / "corpus" / "unlabeled", shard))
    logits = rng.standard_normal((count, len(CLASSES)), dtype=np.float32) * 2
    for name in ("table", "teacher"):
        log_probs = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
        labels = log_probs.argmax(axis=1).astype(np.int32)
        confidences = np.exp(log_probs.max(axis=1))
        part = PredictionPart(keys, labels, confidences, log_probs.astype(np.float16))
        write_part(folder / name, shard, part, CLASSES, "weights:with:images")
        logits[::50] = rng.normal(size=logits[::50].shape)  # the other run labels some otherwise
    return keys[::100]


if __name__ == "__main__":
    main()
