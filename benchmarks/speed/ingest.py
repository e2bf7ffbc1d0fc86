"""`ingest` of a folder of images, held against what it cannot do without, and against a script with webdataset.

The bound: every core decodes, and takes the hashes that the manifest needs of file and pixels. The script: Pillow to
see that an image is whole, webdataset's ShardWriter; it keeps no facts, finds no copies, and cannot go on.
"""

import contextlib
import hashlib
import io
import os
import shutil
import tempfile
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import simplejpeg
import webdataset
import xxhash
from measure import QUICK, Table, photographs, take_turns, write_folders
from PIL import Image

from selftrain.corpus.ingest import ingest
from selftrain.params.ingest import IngestConfig

CASES = {"32 pixels": (32, 300 if QUICK else 20_000), "photographs, 500×375": (375, 40 if QUICK else 4000)}


def main() -> None:
    table = Table("ingest")
    for name, (side, count) in CASES.items():
        with tempfile.TemporaryDirectory() as scratch, contextlib.chdir(scratch):
            measure(table, name, side, count)
    table.write()


def measure(table: Table, name: str, side: int, count: int) -> None:
    """One kind of images."""
    values = write_folders(Path("images"), photographs(count, side)) | {"near_duplicates": False}
    config = IngestConfig.model_validate(values)
    files = sorted(Path("images/pool").iterdir())

    def ours() -> None:
        shutil.rmtree("corpus", ignore_errors=True)
        again()

    def again() -> None:
        with contextlib.redirect_stdout(io.StringIO()):
            ingest(config, 0, Path("corpus"))

    def script() -> None:
        shutil.rmtree("shards", ignore_errors=True)
        Path("shards").mkdir()
        with webdataset.ShardWriter("shards/%06d.tar", maxcount=1000, verbose=0) as writer:
            for number, file in enumerate(files):
                data = file.read_bytes()
                Image.open(io.BytesIO(data)).load()
                writer.write({"__key__": f"{number:09d}", "jpg": data})

    cores = os.cpu_count() or 1
    with ProcessPoolExecutor(cores) as executor:
        parts = [files[start::cores] for start in range(cores)]
        list(executor.map(len, parts))  # the processes are there
        works = {
            "ours": ours,
            "decoding and hashing on every core": lambda: list(executor.map(decode_and_hash, parts)),
            "Pillow and ShardWriter": script,
        }
        seconds = take_turns(works, 1 if QUICK else 3)
        table.compare(name, count, "ours", seconds, "images/s")
        ours()
        reading = "reading and hashing on every core"
        works = {"again, nothing new": again, reading: lambda: list(executor.map(read_and_hash, parts))}
        seconds = take_turns(works, 1 if QUICK else 3)
        table.compare(f"{name}, again with nothing new", count, "again, nothing new", seconds, "images/s")


def decode_and_hash(files: list[Path]) -> None:
    for file in files:
        data = file.read_bytes()
        hashlib.sha256(data).digest()
        xxhash.xxh3_64_digest(data)
        xxhash.xxh3_128_digest(simplejpeg.decode_jpeg(data).data)


def read_and_hash(files: list[Path]) -> None:
    for file in files:
        hashlib.sha256(file.read_bytes()).digest()


if __name__ == "__main__":
    main()
