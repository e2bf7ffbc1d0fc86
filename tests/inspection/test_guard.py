"""The guard before FiftyOne's server, as a function of requests."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from selftrain.inspection.guard import Guard, Public

LOCAL = {"host": "127.0.0.1:5151"}


def answer(
    media: Path, method: str = "GET", path: str = "/", query: str = "", port: int = 5151, **headers: str
) -> dict[str, Any]:
    """What a request gets, at the own port or at the public one, 5152."""
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
        "server": ("127.0.0.1", port),
        "headers": [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()],
    }
    asyncio.run(Guard(app, 5151, media, Public(5152, "secret"))(scope, None, send))  # type: ignore[arg-type]
    return dict(sent[0])


def status(media: Path, **request: Any) -> int:
    """The status; 200 is the guarded application's answer."""
    return int(answer(media, **request)["status"])


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
    other = {"host": "machine:5152", "port": 5152}
    right = {"cookie": "selftrain_token=secret"}
    assert status(tmp_path, **other) == 403
    assert status(tmp_path, query="token=wrong", **other) == 403
    first = answer(tmp_path, path="/datasets/ä", query="view=a-b&token=secret", **other)  # type: ignore[arg-type]
    assert first["status"] == 303, "it sets the cookie"
    headers = dict(first["headers"])
    assert headers[b"location"] == b"/datasets/%C3%A4?view=a-b"
    assert headers[b"set-cookie"].startswith(b"selftrain_token=secret; HttpOnly;")
    assert status(tmp_path, **right, **other) == 200
    assert status(tmp_path, cookie="selftrain_token=wrong", **other) == 403
    for origin, expected in (("http://machine:5152", 200), ("https://machine:5152", 200), ("http://x", 403)):
        assert status(tmp_path, origin=origin, **right, **other) == expected, origin


def test_what_a_request_says_of_itself_opens_no_door(tmp_path: Path) -> None:
    for host in ("127.0.0.1:5151", "localhost:5151", "127.0.0.1:5152"):
        assert status(tmp_path, host=host, port=5152) == 403, host
    assert status(tmp_path, host="machine:5151", query="token=secret", cookie="selftrain_token=secret") == 403
