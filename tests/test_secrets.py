"""Passwords in addresses: in nothing that is written, printed or given to a child as an argument."""

import os
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from selftrain.corpus.archives import from_shards
from selftrain.plumbing.errors import UserError
from selftrain.plumbing.secrets import masked
from tests.conftest import free_port, tar_of
from tests.training.project import write_project

CANARY = "c4n4ry-in-a-coal-mine"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("postgresql://me:p:ss@host/db", "postgresql://me:***@host/db"),
        ("http://host:5000/a:b@c", "http://host:5000/a:b@c"),
        ("sqlite:///mlflow.db", "sqlite:///mlflow.db"),
        ("postgresql://host/db?user=me&password=secret&sslmode=on", "postgresql://host/db?user=me&password=***&sslmode=on"),
        ("https://h/a.tar?X-Amz-Signature=ab12&X-Amz-Date=3", "https://h/a.tar?X-Amz-Signature=***&X-Amz-Date=3"),
        ("https://h/a.tar?sv=1&sig=ab%2F1 then", "https://h/a.tar?sv=1&sig=*** then"),
        ("https://h/a.tar?monkey=1", "https://h/a.tar?monkey=1"),
    ],
)  # fmt: skip
def test_passwords_are_masked(text: str, expected: str) -> None:
    assert masked(text) == expected


@pytest.mark.parametrize("scheme", ["pipe", "ssh", "github", "reference", "ftp", "jupyter"])
def test_an_address_that_is_no_store_is_refused(scheme: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"'{scheme}' is not read; take one of file, http"):
        list(from_shards(tmp_path, f"{scheme}://x/a.tar", Counter(), labeled=False, classes=None))
    with pytest.raises(UserError, match=f"'{scheme}' is not read"):
        list(from_shards(tmp_path, f"simplecache::{scheme}://x/a.tar", Counter(), labeled=False, classes=None))


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """A real MLflow; its address has a user and a password."""
    port = free_port()
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    environment = os.environ | {"MLFLOW_BACKEND_STORE_URI": f"sqlite:///{tmp_path}/server.db"}
    environment |= {"MLFLOW_ARTIFACTS_DESTINATION": str(tmp_path / "artifacts")}
    process = subprocess.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    deadline = time.monotonic() + 120
    while socket.socket().connect_ex(("127.0.0.1", port)) and time.monotonic() < deadline:
        time.sleep(0.2)
    yield f"http://me:{CANARY}@127.0.0.1:{port}"
    os.killpg(process.pid, 9)
    process.wait()


@pytest.mark.slow
def test_no_file_and_no_line_of_a_tracked_training_holds_a_password(
    digits_corpus: Path, tmp_path: Path, server: str
) -> None:
    folder = tmp_path / "p"
    write_project(folder, digits_corpus, steps=20)
    secrets = {"AWS_SECRET_ACCESS_KEY": CANARY, "MLFLOW_TRACKING_URI": server, "MLFLOW_S3_ENDPOINT_URL": server}
    printed = ""
    for command in (("train", "student"), ("predict", "student"), ("doctor",)):
        ended = subprocess.run(
            [sys.executable, "-m", "selftrain", *command],
            cwd=folder,
            env=os.environ | secrets,
            capture_output=True,
            text=True,
            check=False,
        )
        printed += ended.stdout + ended.stderr
        assert ended.returncode == 0 or command == ("doctor",), ended.stderr
    dead = subprocess.run(
        [sys.executable, "-m", "selftrain", "register", "x", "--model", "models/noisy_student/student"],
        cwd=folder,
        env=os.environ | secrets | {"MLFLOW_TRACKING_URI": f"http://me:{CANARY}@127.0.0.1:9"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "me:***@127.0.0.1:9 cannot be used" in dead.stderr
    assert CANARY not in printed + dead.stdout + dead.stderr
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert (tmp_path / "server.db") in files
    assert len(files) > 30
    assert [path for path in files if CANARY.encode() in path.read_bytes()] == []


def test_the_source_of_an_image_from_a_store_has_no_password(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(tar_of({"one.png": b"x"}))
    handler = partial(SimpleHTTPRequestHandler, directory=str(tmp_path))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as files:
        threading.Thread(target=files.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{files.server_port}/a.tar?token={CANARY}"
        (image,) = from_shards(tmp_path, url, Counter(), labeled=False, classes=None)
        files.shutdown()
    assert image.source.endswith("/a.tar?token=***::one.png")
    assert CANARY not in image.source
