"""Stages on a real Ray cluster of two nodes, one of which is killed in the middle."""

import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import polars as pl
import pytest

from selftrain.corpus import examine
from selftrain.corpus.digits import write_digits
from selftrain.corpus.ingest import ingest
from selftrain.networks.export import export_model
from selftrain.networks.models import create_model
from selftrain.params.ingest import IngestConfig
from selftrain.params.predict import PredictConfig
from selftrain.params.select import SelectConfig
from selftrain.plumbing.errors import UserError
from selftrain.plumbing.files import read_json
from selftrain.plumbing.hardware import HardwareConfig
from selftrain.plumbing.process_engine import Processes
from selftrain.plumbing.ray_engine import RayEngine
from selftrain.prediction.predict import predict
from selftrain.selection.select import select
from selftrain.tables.keys import SPLITS
from tests.conftest import SMALL_DIGITS, tar_of
from tests.corpus.photographs import tiles

ON_RAY = HardwareConfig(engine="ray", device="cpu", threads=1, workers=0)
HERE = HardwareConfig(device="cpu", threads=1, workers=0)


class Nodes:
    """A cluster whose nodes can be killed."""

    def __init__(self) -> None:
        from ray.cluster_utils import Cluster

        self.cluster = Cluster(
            initialize_head=True,
            head_node_args={"num_cpus": 0, "include_dashboard": False, "object_store_memory": 2**27},
        )
        self.nodes: list[object] = []

    def make_two(self) -> None:
        """Put nodes in the places of those that were killed."""
        while len(self.nodes) < 2:
            self.nodes.append(self.cluster.add_node(num_cpus=1, object_store_memory=2**27))

    def killed_when(self, seen: Callable[[], bool]) -> threading.Thread:
        """A thread that kills a node in the middle."""
        self.make_two()

        def wait() -> None:
            until = time.monotonic() + 120
            while time.monotonic() < until and not seen():
                time.sleep(0.01)
            self.cluster.remove_node(self.nodes.pop(), allow_graceful=False)

        thread = threading.Thread(target=wait)
        thread.start()
        return thread


@pytest.fixture(scope="module")
def nodes() -> Iterator[Nodes]:
    import ray

    started = Nodes()
    started.make_two()
    before = os.environ.get("RAY_ADDRESS")
    os.environ["RAY_ADDRESS"] = started.cluster.address
    yield started
    ray.shutdown()
    started.cluster.shutdown()
    if before is None:
        del os.environ["RAY_ADDRESS"]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The digits in shards of 40, whose pool stays in place, and a teacher that knows nothing."""
    import torch

    folder = tmp_path_factory.mktemp("ray")
    write_digits(SMALL_DIGITS, 0, folder / "images")
    pool = sorted((folder / "images" / "unlabeled").iterdir())
    for start in range(0, len(pool), 40):
        members = {path.name: path.read_bytes() for path in pool[start : start + 40]}
        (folder / "images" / f"pool-{start // 40:03d}.tar").write_bytes(tar_of(members))
    ingest(configured(folder), 0, folder / "corpus")
    torch.manual_seed(0)
    model = create_model("test_resnet", 10, 32)
    classes = [str(label) for label in range(10)]
    export_model(model, folder / "model", classes=classes, image_size=32, crop_fraction=1.0)
    return folder


def configured(folder: Path) -> IngestConfig:
    count = len(list((folder / "images").glob("pool-*.tar")))
    splits: dict[str, object] = {split: {"images": split} for split in ("labeled", "validation", "test")}
    splits["unlabeled"] = {"images": f"pool-{{000..{count - 1:03d}}}.tar", "in_place": True}
    return IngestConfig.model_validate({"root": str(folder / "images"), "images_per_shard": 40, **splits})


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_every_stage_makes_the_same_bytes_though_a_node_dies(
    nodes: Nodes, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project)
    corpus = project / "corpus"
    there = project / "corpus-ray"
    ingest(configured(project), 0, there, machine=ON_RAY)
    different = {name for name, data in files(there).items() if files(corpus)[name] != data}
    assert different == set(), different
    config = PredictConfig(embeddings=True)
    predict(project / "model", corpus, SPLITS, project / "here", config, 0, HERE)
    total = len(parts(project / "here" / "unlabeled"))
    killing = nodes.killed_when(lambda: len(parts(project / "ray" / "unlabeled")) >= 5)
    predict(project / "model", corpus, SPLITS, project / "ray", config, 0, ON_RAY)
    killing.join()
    assert files(project / "ray") == files(project / "here")
    assert total > 30

    wanted = SelectConfig(threshold=0, gate=0.05, per_class="auto")
    for name, machine in (("here", HERE), ("ray", ON_RAY)):
        tables, out = project / name / "unlabeled", project / f"selected-{name}"
        killing = nodes.killed_when(lambda: True) if name == "ray" else None
        select(wanted, 0, tables, corpus, out, machine=machine)
        if killing is not None:
            killing.join()
    assert files(project / "selected-ray") == files(project / "selected-here")
    assert read_json(project / "selected-ray" / "summary.json", "")["images"] == len(
        list((project / "images" / "unlabeled").iterdir())
    )


def test_images_are_copied_as_by_one_machine_though_a_node_dies(
    nodes: Nodes, project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(examine, "ALONE", 0.0)
    monkeypatch.setattr(examine, "LARGEST_CHUNK", 4)
    splits = {split: {"images": split} for split in SPLITS}
    config = IngestConfig.model_validate({"root": str(project / "images"), "images_per_shard": 20, **splits})
    ingest(config, 0, tmp_path / "here")
    killing = nodes.killed_when(lambda: len(list((tmp_path / "ray" / "unlabeled").glob("*shard-*.tar"))) > 2)
    ingest(config, 0, tmp_path / "ray", machine=ON_RAY)
    killing.join()
    assert files(tmp_path / "ray") == files(tmp_path / "here")
    assert len(list((tmp_path / "ray" / "unlabeled").glob("shard-*.tar"))) > 10


def parts(folder: Path) -> list[Path]:
    return list(folder.glob("part-*.parquet"))


def test_copies_are_those_that_one_machine_finds(nodes: Nodes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for number, tile in enumerate(tiles()[:30]):
        split = ("labeled", "validation", "test")[number % 3]
        folder = tmp_path / "images" / split / "ab"[number // 3 % 2]
        folder.mkdir(parents=True, exist_ok=True)
        tile.save(folder / f"{number}.png")
        (tmp_path / "images" / "pool").mkdir(exist_ok=True)
        for quality in (85, 92):
            tile.save(tmp_path / "images" / "pool" / f"{number}-{quality}.jpg", quality=quality)
    splits = {split: {"images": split} for split in ("labeled", "validation", "test")}
    values = {"root": str(tmp_path / "images"), "unlabeled": {"images": "pool"}, "images_per_shard": 20, **splits}
    ingest(IngestConfig.model_validate(values), 0, tmp_path / "here")
    shutil.rmtree(tmp_path / ".selftrain")  # nothing is remembered
    nodes.make_two()
    ingest(IngestConfig.model_validate(values), 0, tmp_path / "ray", machine=ON_RAY)
    assert files(tmp_path / "ray") == files(tmp_path / "here")
    found = pl.read_parquet(tmp_path / "ray" / "duplicates.parquet")
    assert sorted(found.group_by("kind", "match").len().rows()) == [("duplicate", "near", 10), ("leak", "near", 40)]


def test_what_a_user_can_mend_comes_back_as_it_was_said(nodes: Nodes) -> None:
    def fails(unit: int) -> int:
        if unit == 3:
            raise UserError("row 3 is wrong; correct it")
        return unit * 10

    engine = RayEngine(on_gpu=False)
    with pytest.raises(UserError, match="^row 3 is wrong; correct it$"):
        list(engine.done(lambda: fails, range(6), str, "a test"))
    assert sorted(engine.done(lambda: fails, [0, 1, 2], str, "a test")) == [(0, 0), (1, 10), (2, 20)]

    def not_ready() -> Callable[[int], int]:
        raise UserError("no model there")

    with pytest.raises(UserError, match="^no model there$"):
        list(engine.done(not_ready, [1], str, "a test"))


def test_a_cluster_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    import subprocess
    import sys

    script = """
from selftrain.plumbing.errors import UserError
from selftrain.plumbing.ray_engine import RayEngine
try:
    list(RayEngine(False).done(lambda: str, [1], str, "a test"))
except UserError as error:
    print(error)
"""
    environment = os.environ | {"RAY_ADDRESS": "127.0.0.1:1"}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, timeout=120)
    assert "hardware.engine: the Ray cluster 127.0.0.1:1 cannot be reached" in done.stdout, done.stderr[-2000:]


def kills_itself_once(folder: Path) -> Callable[[int], int]:
    def work(unit: int) -> int:
        mark = folder / str(unit)
        if unit % 3 == 1 and not mark.exists():
            mark.touch()
            os.kill(os.getpid(), 9)
        return unit * 10

    return work


def test_a_process_that_dies_costs_its_unit(tmp_path: Path) -> None:
    done = list(Processes(2).done(lambda: kills_itself_once(tmp_path), range(10), str, "a test"))
    assert sorted(done) == [(unit, unit * 10) for unit in range(10)]
    assert len(list(tmp_path.iterdir())) == 3


def test_a_unit_that_kills_again_and_again_is_named() -> None:
    def work(unit: int) -> int:
        if unit == 4:
            os.kill(os.getpid(), 9)
        return unit

    with pytest.raises(UserError, match="^unit 4: the processes that work on it die"):
        list(Processes(3).done(lambda: work, range(6), lambda unit: f"unit {unit}", "a test"))
