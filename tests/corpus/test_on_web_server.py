import os
import tarfile
import threading
import time
from collections.abc import Iterator
from email.utils import formatdate
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import pytest

from selftrain.corpus.ingest import ingest
from selftrain.plumbing import stores
from selftrain.plumbing.errors import UserError
from tests.conftest import MakeConfig, tar_of
from tests.corpus.manifests import keys_of
from tests.corpus.pools_in_place import in_place, own_folder, shard

__all__ = ["own_folder"]


def test_a_server_without_ranges_can_be_copied_from_and_not_read_in_place(
    ingest_config: MakeConfig, photos: Path, tmp_path: Path
) -> None:
    (tmp_path / "served").mkdir()
    (tmp_path / "served" / "p.tar").write_bytes(shard(0))
    handler = partial(SimpleHTTPRequestHandler, directory="served")
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/p.tar"
        ingest(ingest_config(unlabeled={"images": url}), 0, Path("copied"))
        with pytest.raises(UserError, match=r"p\.tar: its server gives no ranges, only whole files; copy it instead"):
            ingest(ingest_config(**in_place(url)), 0, Path("corpus"))
        server.shutdown()
    assert len(keys_of(Path("copied"))) == 6


class Moody(SimpleHTTPRequestHandler):
    """A web server that has ranges and times, and no ETag. It answers ``moods`` first."""

    moods: ClassVar[list[int]] = []

    def do_GET(self) -> None:
        path = Path(self.translate_path(self.path))
        if self.moods:
            self.send_error(self.moods.pop(0))
            return
        data = path.read_bytes()
        first, _, last = self.headers.get("Range", "bytes=0-").removeprefix("bytes=").partition("-")
        some = data[int(first) : int(last) + 1 if last else None]
        self.send_response(206 if "Range" in self.headers else 200)
        self.send_header("Content-Length", str(len(some)))
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Range", f"bytes {first}-{int(first) + len(some) - 1}/{len(data)}")
        self.send_header("Last-Modified", formatdate(path.stat().st_mtime, usegmt=True))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(some)

    do_HEAD = do_GET

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def moody(tmp_path: Path) -> Iterator[str]:
    (tmp_path / "served").mkdir()
    (tmp_path / "served" / "p.tar").write_bytes(shard(0))
    Moody.moods.clear()
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Moody, directory="served")) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/p.tar"
        server.shutdown()


def test_a_server_that_fails_is_asked_again_and_no_missing_file(
    ingest_config: MakeConfig, moody: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stores, "FIRST_PAUSE", 0.001)
    Moody.moods += [503, 503, 429]
    ingest(ingest_config(**in_place(moody)), 0, Path("corpus"))
    assert len(keys_of(Path("corpus"))) == 6
    for mood, said in ((403, "its store does not allow it"), (404, "no such file in its store")):
        Moody.moods[:] = [mood] * 10
        with pytest.raises(UserError, match=said):
            stores.version_of(moody)
    Moody.moods[:] = [500] * 100
    with pytest.raises(UserError, match="did not answer 7 times"):
        stores.version_of(moody)
    with pytest.raises(UserError, match="its server answers 500"):
        ingest(ingest_config(unlabeled={"images": moody}), 0, Path("copied"))


def test_a_server_without_etags_tells_a_change_by_its_time(
    ingest_config: MakeConfig, moody: str, tmp_path: Path
) -> None:
    ingest(ingest_config(**in_place(moody)), 0, Path("corpus"))
    before = keys_of(Path("corpus"))
    changed = tmp_path / "served" / "p.tar"
    size = changed.stat().st_size
    with tarfile.open(changed) as tar:
        members = {member.name: tar.extractfile(member).read() for member in reversed(tar.getmembers())}  # type: ignore[union-attr]
    changed.write_bytes(tar_of(members))
    assert changed.stat().st_size == size
    os.utime(changed, (time.time() + 60,) * 2)
    ingest(ingest_config(**in_place(moody)), 0, Path("corpus"))
    assert set(before.values()).isdisjoint(keys_of(Path("corpus")).values())
