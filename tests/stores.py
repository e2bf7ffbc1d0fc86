"""A store on this machine, and a bad line to it."""

import contextlib
import select
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import boto3
import pytest
from s3fs import S3FileSystem

from tests.conftest import free_port

SETTINGS = {
    "AWS_ACCESS_KEY_ID": "anybody",
    "AWS_SECRET_ACCESS_KEY": "secret",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}


@pytest.fixture(scope="module")
def s3() -> Iterator[int]:
    """The port of a server that speaks S3, in a process of its own."""
    port = free_port()
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        until = time.monotonic() + 60
        while time.monotonic() < until:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
                break
            time.sleep(0.1)
        yield port
        process.kill()


def bucket(port: int, name: str, objects: dict[str, bytes]) -> None:
    """Put objects into a bucket."""
    store = client(port)
    store.create_bucket(Bucket=name)
    for key, data in objects.items():
        store.put_object(Bucket=name, Key=key, Body=data)


def client(port: int) -> Any:
    """A client of the server on a port."""
    return boto3.client(
        "s3",
        endpoint_url=f"http://127.0.0.1:{port}",
        aws_access_key_id=SETTINGS["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=SETTINGS["AWS_SECRET_ACCESS_KEY"],
        region_name=SETTINGS["AWS_DEFAULT_REGION"],
    )


def use(monkeypatch: pytest.MonkeyPatch, port: int) -> None:
    """Let the clients of stores find a server here."""
    for name, value in SETTINGS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
    S3FileSystem.clear_instance_cache()


@dataclass
class BadLine:
    """A proxy before a server: it answers late, and cuts some connections in the middle of an answer."""

    server: int
    latency: float = 0.0
    cut_every: int = 0
    """Every so many-th connection is cut."""
    cut_after: int = 2000
    """Bytes of its answers."""
    port: int = 0
    connections: int = 0
    cuts: int = 0
    passed: int = 0
    """Bytes of answers."""
    asked: list[str] = field(default_factory=list)
    """The first line of each request."""

    def __enter__(self) -> "BadLine":
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = self._listening.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self._listening.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listening.accept()
            except OSError:
                return
            self.connections += 1
            cut = self.cut_every > 0 and self.connections % self.cut_every == 0
            threading.Thread(target=self._forward, args=(client, cut), daemon=True).start()

    def _forward(self, client: socket.socket, cut: bool) -> None:
        left = self.cut_after
        with client, socket.create_connection(("127.0.0.1", self.server)) as server:
            while True:
                for ready in select.select([client, server], [], [])[0]:
                    try:
                        data = ready.recv(65536)
                    except OSError:
                        return
                    if not data:
                        return
                    if ready is client:
                        self.asked += [line for line in data.decode("latin-1").split("\r\n") if " HTTP/1." in line]
                        time.sleep(self.latency)
                        server.sendall(data)
                        continue
                    self.passed += len(data)
                    if cut and len(data) > left:
                        self.cuts += 1
                        with contextlib.suppress(OSError):
                            client.sendall(data[:left])
                        return
                    left -= len(data)
                    with contextlib.suppress(OSError):
                        client.sendall(data)
