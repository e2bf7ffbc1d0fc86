import io
import os
import shutil
import socket
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from filelock import FileLock
from PIL import Image

from selftrain.corpus import verdicts
from selftrain.images import pixel_cache, remote_shard
from selftrain.params.digits import DigitsConfig
from selftrain.params.ingest import IngestConfig
from selftrain.plumbing import tracking
from selftrain.plumbing.files import atomic_path
from tests.repository import reproduced, with_pipeline


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


DATABASE_PORT = free_port()
# Before anything imports MLflow, DVC or FiftyOne.
os.environ.update(
    DVC_NO_ANALYTICS="1",
    FIFTYONE_DO_NOT_TRACK="true",
    FIFTYONE_DATABASE_VALIDATION="false",
    FIFTYONE_DATABASE_URI=f"mongodb://127.0.0.1:{DATABASE_PORT}",
    MLFLOW_DISABLE_TELEMETRY="true",
    OMP_WAIT_POLICY="PASSIVE",
)
os.environ.pop("MLFLOW_TRACKING_URI", None)

SMALL_DIGITS = DigitsConfig(labels_per_class=3, validation_per_class=4, test_per_class=5, out_of_domain=20)


LONG = (
    "test_pipeline", "test_pipelines", "test_notebooks", "test_docs", "test_wheel", "test_app", "test_train",
    "test_several_processes", "test_launch", "test_ray", "test_team", "test_sharding", "test_two_processes",
    "test_rehearsal", "test_benchmarks", "test_compile", "test_distilled_runs", "test_signals", "test_init",
    "test_lost_mlflow", "test_cli",
)  # fmt: skip
"""Files that take minutes. They go first, so that two workers end together."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: LONG.index(item.path.stem) if item.path.stem in LONG else len(LONG))


@pytest.fixture(scope="session", autouse=True)
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """FiftyOne's MongoDB, one a test process.

    Left to itself FiftyOne joins any database service of the machine, whatever its folder is: tests of two processes
    would meet there, and the service would keep the pipes of the process that started it until the last has ended.
    """
    fiftyone = find_spec("fiftyone")
    assert fiftyone is not None
    assert fiftyone.origin is not None
    mongod = Path(fiftyone.origin).parent / "db" / "bin" / "mongod"
    folder = tmp_path_factory.mktemp("mongo")
    command = (mongod, "--dbpath", folder, "--bind_ip", "127.0.0.1", "--port", str(DATABASE_PORT), "--nounixsocket")
    with subprocess.Popen([*command, "--quiet"], stdout=subprocess.DEVNULL) as process:
        yield
        process.kill()


@pytest.fixture(scope="session", autouse=True)
def kept_pixels(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Tests that run in the repository's own folder keep nothing there."""
    pixel_cache.FOLDER = tmp_path_factory.mktemp("pixels")
    verdicts.FOLDER = tmp_path_factory.mktemp("near")
    remote_shard.KEPT = tmp_path_factory.mktemp("shards")


@pytest.fixture(scope="session", autouse=True)
def mlflow_databases(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """New databases of this process are copies of one: MLflow takes seconds to make its tables."""
    whole, template = tracking._make_database, tmp_path_factory.mktemp("mlflow") / "mlflow.db"

    def copied(uri: str) -> None:
        path = Path(uri.removeprefix("sqlite:///").partition("?")[0])
        if uri.startswith("sqlite:///") and not path.exists():
            if not template.exists():
                whole(f"sqlite:///{template}")
            with atomic_path(path) as temporary:
                shutil.copy(template, temporary)

    tracking._make_database = copied
    yield
    tracking._make_database = whole


def image_bytes(seed: int = 0, size: tuple[int, int] = (12, 10), image_format: str = "PNG", mode: str = "RGB") -> bytes:
    """A random image as a file's bytes."""
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(file, image_format)
    return file.getvalue()


def tar_of(members: dict[str, bytes], mode: Any = "w") -> bytes:
    """A tar of members by name, as a file's bytes."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode=mode) as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return file.getvalue()


def write_images(folder: Path, count: int, seed: int = 0) -> list[Path]:
    """Write random PNGs; returns their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{seed}-{number:03d}.png" for number in range(count)]
    for number, path in enumerate(paths):
        path.write_bytes(image_bytes(seed * 1000 + number))
    return paths


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder of images as a user has it: three classes in every labeled split, and a pool."""
    root = tmp_path / "photos"
    for split, seed in (("labeled", 1), ("validation", 2), ("test", 3)):
        for offset, name in enumerate(("cat", "dog", "owl")):
            write_images(root / split / name, 4, seed * 10 + offset)
    write_images(root / "pool", 9, 50)
    return root


MakeConfig = Callable[..., IngestConfig]


@pytest.fixture
def ingest_config(photos: Path) -> MakeConfig:
    """Make an ingest configuration for ``photos``; keyword arguments replace parts of it."""

    def make(**changes: object) -> IngestConfig:
        values: dict[str, object] = {
            "root": str(photos),
            "labeled": {"images": "labeled"},
            "unlabeled": {"images": "pool"},
            "validation": {"images": "validation"},
            "test": {"images": "test"},
            "images_per_shard": 5,
            "max_quarantined": 0.5,
        }
        return IngestConfig.model_validate(values | changes)

    return make


@pytest.fixture(scope="session")
def digits_corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The ingested digits, read only: 30 labeled, 40 validation, 50 test, the rest and 20 crops unlabeled."""
    from selftrain.corpus.digits import write_digits
    from selftrain.corpus.ingest import ingest

    folder = tmp_path_factory.mktemp("digits")
    write_digits(SMALL_DIGITS, 0, folder / "images")
    splits = {split: {"images": split} for split in ("labeled", "unlabeled", "validation", "test")}
    config = {"root": str(folder / "images"), "truth": "truth.csv", "images_per_shard": 400, **splits}
    ingest(IngestConfig.model_validate(config), 0, folder / "corpus")
    return folder / "corpus"


@pytest.fixture(scope="session")
def digits_rounds(digits_corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project folder with made-up predictions of a teacher and two students, and what is selected and reviewed by them."""
    from selftrain.params.select import SelectConfig
    from selftrain.selection.select import select
    from selftrain.tables.manifest import iter_manifest
    from selftrain.tables.predictions import PredictionPart, write_part

    folder = tmp_path_factory.mktemp("project")
    (folder / "data").mkdir()
    (folder / "data" / "corpus").symlink_to(digits_corpus)
    classes = [str(label) for label in range(10)]
    for number, run in enumerate(("teacher", "student1", "student2")):
        rng = np.random.default_rng(number)
        for split in ("unlabeled", "validation", "test"):
            for shard, table in iter_manifest(digits_corpus / split, ["key"]):
                log_probs = np.log(rng.dirichlet(np.full(10, 0.15), table.num_rows) + 1e-6).astype(np.float16)
                arrays = (log_probs.argmax(1).astype(np.int32), np.exp(log_probs.max(1)).astype(np.float32), log_probs)
                part = PredictionPart(table["key"].to_numpy(), *arrays)
                write_part(folder / "predictions" / "noisy_student" / run / split, shard, part, classes, run)
    for round_, teacher in (("student1", "teacher"), ("student2", "student1")):
        table = folder / "predictions" / "noisy_student" / teacher / "unlabeled"
        select(SelectConfig(threshold=0.5), 0, table, digits_corpus, folder / "selections" / "noisy_student" / round_)
    _review_and_embeddings(folder)
    params = {
        "supervised": {"teacher": {}},
        "rounds": {"student1": {"teacher": "teacher"}, "student2": {"teacher": "student1"}},
        "browse": {"dataset": "selftrain-test", "images_per_view": 15},
    }
    (folder / "params.yaml").write_text(yaml.safe_dump(with_pipeline(params)))
    return folder


def _review_and_embeddings(folder: Path) -> None:
    """Beside them the lists of what to look at, and the last student's embeddings, made up too."""
    from selftrain.evaluation.review import Rounds, review
    from selftrain.params.review import ReviewConfig
    from selftrain.plumbing.files import write_json
    from selftrain.tables.embeddings import Embeddings, embeddings_folder, write_embeddings
    from selftrain.tables.predictions import iter_predictions, made_from_digest
    from selftrain.tables.selection import selection_digest

    tables = (folder / "predictions" / "noisy_student", folder / "selections" / "noisy_student")
    chain = Rounds({"student1": "teacher", "student2": "student1"}, *tables)
    evaluation = folder / "evaluation" / "noisy_student"
    for run in chain.runs:
        tables = {"predictions": made_from_digest(chain.predictions / run / "unlabeled")}
        if run in chain.teachers:
            tables["selection"] = selection_digest(chain.selections / run)
        write_json(evaluation / run / "details" / "run.json", {"run": run, "tables": tables})
    out = folder / "review" / "noisy_student"
    review(chain, evaluation, folder / "data" / "corpus", ReviewConfig(images=40), out)
    for shard, part in iter_predictions(chain.predictions / "student2" / "unlabeled"):
        vectors = np.random.default_rng(shard).normal(size=(len(part.keys), 8)).astype(np.float16)
        write_embeddings(
            embeddings_folder(chain.predictions / "student2"), shard, Embeddings(part.keys, vectors), "test"
        )


@pytest.fixture(scope="session")
def reproduced_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The repository with few steps, reproduced by whichever test process needs it first; to be copied."""
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent
    folder = shared / "reproduced"
    with FileLock(shared / "reproduced.lock"):
        if not folder.exists():
            reproduced(folder)
    return folder
