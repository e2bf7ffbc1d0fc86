"""The guard before FiftyOne's server, as a function of requests."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from selftrain.inspection.guard import Guard

LOCAL = {"host": "127.0.0.1:5151"}


def status(
    media: Path, method: str = "GET", path: str = "/", query: str = "", token: str | None = None, **headers: str
) -> int:
    """What a request gets; 200 is the guarded application's answer."""
    sent: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "query_string": query.encode(),
        "headers": [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()],
    }
    asyncio.run(Guard(app, 5151, media, token)(scope, None, send))  # type: ignore[arg-type]
    return int(sent[0]["status"])


@pytest.mark.parametrize(
    ("expected", "request_"),
    [
        (200, LOCAL),
        (200, {"host": "localhost:5151"}),
        (403, {"host": "attacker.example:5151"}),
        (403, {"host": "127.0.0.1:80"}),
        (403, {}),
        (200, LOCAL | {"origin": "http://127.0.0.1:5151"}),
        (403, LOCAL | {"origin": "http://localhost:5151"}),
        (403, LOCAL | {"origin": "http://attacker.example"}),
        (403, LOCAL | {"origin": "null"}),
        (403, {"method": "OPTIONS"} | LOCAL | {"origin": "http://attacker.example"}),
        (200, LOCAL | {"sec_fetch_site": "same-origin"}),
        (403, LOCAL | {"sec_fetch_site": "cross-site", "sec_fetch_mode": "no-cors", "sec_fetch_dest": "image"}),
        (403, LOCAL | {"sec_fetch_site": "same-site", "sec_fetch_mode": "navigate", "sec_fetch_dest": "iframe"}),
        (200, LOCAL | {"sec_fetch_site": "cross-site", "sec_fetch_mode": "navigate", "sec_fetch_dest": "document"}),
        (200, {"method": "POST"} | LOCAL | {"content_type": "application/json; charset=utf-8"}),
        (200, {"method": "POST"} | LOCAL | {"content_type": "text/event-stream"}),
        (403, {"method": "POST"} | LOCAL | {"content_type": "text/plain"}),
        (403, {"method": "POST"} | LOCAL | {"content_type": "application/x-www-form-urlencoded"}),
        (403, {"method": "DELETE"} | LOCAL),
    ],
)
def test_who_may_pass(tmp_path: Path, expected: int, request_: dict[str, str]) -> None:
    assert status(tmp_path, **request_) == expected  # type: ignore[arg-type]


def test_files_outside_the_media_folder_are_not_read(tmp_path: Path) -> None:
    media = tmp_path / "media"
    media.mkdir()
    (media / "link").symlink_to("/etc")
    for path, expected in (
        (media / "1.png", 200),
        ("/etc/passwd", 403),
        (media / ".." / "secret", 403),
        (media / "link" / "passwd", 403),
        (f"{media}2/1.png", 403),
        ("1.png", 403),
    ):
        assert status(media, path="/media", query=f"filepath={path}", **LOCAL) == expected, path
    assert status(media, path="/media", query=f"filepath={media}/1.png&filepath=/etc/passwd", **LOCAL) == 403


def test_a_token_lets_others_in(tmp_path: Path) -> None:
    other = {"host": "machine:5151"}
    assert status(tmp_path, token="secret", **other) == 403
    assert status(tmp_path, token="secret", query="token=wrong", **other) == 403
    assert status(tmp_path, token="secret", query="token=secret", **other) == 303, "it sets the cookie"
    assert status(tmp_path, token="secret", cookie="selftrain_token=secret", **other) == 200
    assert status(tmp_path, token="secret", cookie="selftrain_token=wrong", **other) == 403
    assert status(tmp_path, token="secret", cookie="selftrain_token=secret", origin="http://x", **other) == 403
    assert status(tmp_path, token="secret", **LOCAL) == 200
    assert status(tmp_path, query="token=secret", cookie="selftrain_token=secret", **other) == 403, "none was given out"
