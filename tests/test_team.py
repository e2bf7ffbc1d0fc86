"""A team: DVC's remote in a bucket, and one MLflow on PostgreSQL with its files in a bucket."""

import contextlib
import os
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import psycopg2
import pytest

from selftrain.plumbing.tracker import Tracker
from tests.conftest import free_port
from tests.repository import Project
from tests.stores import SETTINGS, bucket, client, s3

__all__ = ["s3"]

POSTGRES = max(Path("/usr/lib/postgresql").glob("*/bin"), default=Path("none"))


def test_two_clones_share_what_was_made(
    s3: int, reproduced_once: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket(s3, "team", {})
    for name, value in SETTINGS.items():
        monkeypatch.setenv(name, value)
    shutil.copytree(reproduced_once, tmp_path / "alice")
    alice = Project(tmp_path / "alice")
    alice.run("dvc", "remote", "add", "-d", "team", "s3://team/dvc")
    alice.run("dvc", "remote", "modify", "team", "endpointurl", f"http://127.0.0.1:{s3}")
    alice.run("git", "commit", "-qam", "a remote for the team")
    alice.run("dvc", "push", "-q")
    alice.run("git", "clone", "-q", str(alice.folder), str(tmp_path / "bob"))
    bob = Project(tmp_path / "bob")
    assert not (bob.folder / "data" / "corpus").exists()
    bob.run("dvc", "pull", "-q")
    assert bob.repro() == [], "a stage ran that somebody had run"
    for name in ("data/corpus", "models", "predictions", "selections", "reports"):
        assert contents(bob.folder / name) == contents(alice.folder / name) != {}, name

    bob.change(0.5, "rounds", "student2", "select", "threshold")
    ran = bob.repro()
    assert [stage for stage in ran if "@student1" in stage or "@teacher" in stage] == []
    assert {"select@student2", "train@student2"} <= set(ran)
    bob.run("git", "commit", "-qam", "a higher threshold")
    bob.run("dvc", "push", "-q")
    alice.run("git", "pull", "-q", str(bob.folder), "HEAD")
    alice.run("dvc", "pull", "-q")
    assert alice.repro() == []
    for name in ("models", "selections"):
        assert contents(bob.folder / name) == contents(alice.folder / name), name


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture
def database(tmp_path: Path) -> Iterator[int]:
    """The port of a PostgreSQL of its own, which does not run as root."""
    if not POSTGRES.is_dir():
        pytest.skip("PostgreSQL is not installed")
    folder, port = tmp_path / "postgres", free_port()
    folder.mkdir()
    user: list[str] = []
    if os.getuid() == 0:
        shutil.chown(folder, "postgres", "postgres")
        for parent in folder.parents:
            if parent.owner() == "root" and not parent.stat().st_mode & 0o001:
                parent.chmod(parent.stat().st_mode | 0o011)
        user = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"]
    data = folder / "data"
    made = [*user, str(POSTGRES / "initdb"), "-D", str(data), "-A", "trust", "-U", "mlflow"]
    subprocess.run(made, check=True, capture_output=True, cwd="/")
    # Without a Unix socket, whose path may not be long.
    command = [*user, str(POSTGRES / "postgres"), "-D", str(data), "-p", str(port), "-h", "127.0.0.1", "-k", ""]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL, cwd="/") as process:
        until = time.monotonic() + 60
        while time.monotonic() < until:
            with contextlib.suppress(psycopg2.OperationalError):
                query(port, "create database mlflow", "postgres")
                break
            time.sleep(0.2)
        yield port
        process.kill()


def query(port: int, command: str, name: str = "mlflow") -> list[tuple[object, ...]]:
    connection = psycopg2.connect(host="127.0.0.1", port=port, user="mlflow", dbname=name)
    connection.autocommit = True
    try:
        with connection.cursor() as cursor:
            cursor.execute(command)
            return cursor.fetchall() if cursor.description else []
    finally:
        connection.close()


def test_mlflow_keeps_figures_in_postgresql_and_files_in_a_bucket(
    s3: int, database: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket(s3, "figures", {})
    port = free_port()
    command = [
        sys.executable, "-m", "mlflow", "server",
        f"--backend-store-uri=postgresql+psycopg2://mlflow@127.0.0.1:{database}/mlflow",
        "--artifacts-destination=s3://figures/mlflow", "--host=127.0.0.1", f"--port={port}", "--workers=1",
    ]  # fmt: skip
    settings = SETTINGS | {"MLFLOW_S3_ENDPOINT_URL": f"http://127.0.0.1:{s3}"}
    monkeypatch.chdir(tmp_path)
    with subprocess.Popen(
        command, env=os.environ | settings, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as server:
        until = time.monotonic() + 120
        while time.monotonic() < until:
            with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5):
                break
            time.sleep(0.5)
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{port}")
        tracker = Tracker(Path("work"), "teacher", {"pipeline": "p"}, {"a.b": "1"}, {"training": ("data", "digest1")})
        tracker.log(10, {"loss": 0.25})
        tracker.finish("FINISHED")
        run = tracker.wait_for_run()
        server.terminate()
        server.wait(timeout=60)
    assert query(database, "select run_uuid, name, status from runs") == [(run, "teacher", "FINISHED")]
    assert query(database, "select key, step, value from metrics") == [("loss", 10, 0.25)]
    keys = [found["Key"] for found in client(s3).list_objects_v2(Bucket="figures")["Contents"]]
    assert [key for key in keys if run in key and key.endswith("environment.txt")] != [], keys
