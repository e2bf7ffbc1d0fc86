"""What the speed benchmarks share: repeats that take turns, tables, and the images that are measured on."""

import io
import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path

import numpy as np
from PIL import Image

QUICK = bool(os.environ.get("QUICK"))
"""Tiny sizes: to see that a benchmark runs, not to measure."""
REPEATS = 1 if QUICK else 5
OUT = Path(".selftrain/speed")


@dataclass
class Row:
    """One comparison: what we do, and what it is held against."""

    what: str
    against: str
    ours: float
    theirs: float
    unit: str
    """Of both figures: more is better."""

    @property
    def ratio(self) -> float:
        return self.ours / self.theirs


@dataclass
class Table:
    """A stage's comparisons, printed as Markdown and kept as JSON beside the machine and the versions."""

    stage: str
    rows: list[Row] = field(default_factory=list)

    def compare(self, what: str, count: int, ours: str, seconds: dict[str, float], unit: str) -> None:
        """A row for everything that was timed with ours on the same ``count`` things."""
        for name, theirs in seconds.items():
            if name != ours:
                self.rows.append(Row(what, name, count / seconds[ours], count / theirs, unit))

    def write(self) -> None:
        print(f"## {self.stage}\n\n| | ours | held against | theirs | ratio |\n| --- | ---: | --- | ---: | ---: |")
        for row in self.rows:
            figures = f"{row.ours:,.4g} {row.unit} | {row.against} | {row.theirs:,.4g} {row.unit} | {row.ratio:.2f}"
            print(f"| {row.what} | {figures} |")
        print()
        OUT.mkdir(parents=True, exist_ok=True)
        rows = [asdict(row) | {"ratio": row.ratio} for row in self.rows]
        document = {"stage": self.stage, "machine": machine(), "quick": QUICK, "rows": rows}
        (OUT / f"{self.stage}.json").write_text(json.dumps(document, indent=2))


def machine() -> dict[str, str]:
    """What the figures were measured on."""
    processor = platform.processor()
    if Path("/proc/cpuinfo").exists():
        names = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
        processor = names[0].partition(": ")[2] if names else processor
    libraries = ("torch", "timm", "pillow", "opencv-python-headless", "webdataset", "polars", "duckdb", "dvc")
    versions = {library: version(library) for library in libraries}
    return {"processor": processor, "cores": str(os.cpu_count()), "python": platform.python_version(), **versions}


def take_turns(works: dict[str, Callable[[], object]], repeats: int = REPEATS) -> dict[str, float]:
    """The median seconds of each, measured in turns, so that what disturbs the machine disturbs all."""
    taken: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(repeats):
        for name, work in works.items():
            began = time.perf_counter()
            work()
            taken[name].append(time.perf_counter() - began)
    return {name: statistics.median(times) for name, times in taken.items()}


def photographs(count: int, side: int, seed: int = 0) -> list[bytes]:
    """JPEGs of random smooth pictures with some grain, 4:3, ``side`` pixels high, about as large as photographs are."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(count):
        coarse = Image.fromarray(rng.integers(0, 256, (max(4, side // 16), max(4, side // 16), 3), dtype=np.uint8))
        smooth = np.asarray(coarse.resize((side * 4 // 3, side), Image.Resampling.BICUBIC), np.int16)
        grainy = np.clip(smooth + rng.integers(-6, 7, smooth.shape), 0, 255).astype(np.uint8)
        file = io.BytesIO()
        Image.fromarray(grainy).save(file, "JPEG", quality=88)
        found.append(file.getvalue())
    return found


def write_folders(folder: Path, pool: list[bytes], classes: tuple[str, ...] = ("a", "b")) -> dict[str, object]:
    """A pool with the few labeled images that ingest asks for; returns the section ``ingest``."""
    (folder / "pool").mkdir(parents=True)
    for number, data in enumerate(pool):
        (folder / "pool" / f"{number:06d}.jpg").write_bytes(data)
    for seed, split in enumerate(("labeled", "validation", "test")):
        for name, data in zip(classes, photographs(len(classes), 40, 1000 + seed), strict=True):
            path = folder / split / name / "0.jpg"
            path.parent.mkdir(parents=True)
            path.write_bytes(data)
    splits = {split: {"images": split} for split in ("labeled", "validation", "test")}
    return {"root": str(folder), "unlabeled": {"images": "pool"}, **splits}
