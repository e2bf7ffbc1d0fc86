"""A guard before FiftyOne's server, which obeys any page that the browser has open.

It answers only to its own address (a rebound name has another Host), only pages that it served itself (Origin and
Sec-Fetch-Site, which browsers send), where something changes only types that a browser asks permission for (it sends
forms and plain text without asking), and it reads no file outside the media folder.

With a token, others may come in too: by any name, once they have opened the address with the token.
"""

import hmac
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from http.cookies import CookieError, SimpleCookie
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

COOKIE = "selftrain_token"
LOOKS_ONLY = ("GET", "HEAD", "OPTIONS")
TYPES = ("application/json", "text/event-stream")
"""What FiftyOne's own pages send."""


class Guard:
    """An ASGI application that passes on to another what may pass."""

    def __init__(self, app: App, port: int, media: Path, token: str | None = None) -> None:
        self.app, self.media, self.token = app, media.resolve(), token
        self.hosts = {f"{name}:{port}" for name in ("127.0.0.1", "localhost")}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        query = parse_qs(scope["query_string"].decode("latin-1"))
        if self.token is not None and _same(query.get("token", [""])[0], self.token):
            await _let_in(send, self.token, scope["path"])
            return
        refusal = self._refusal(scope, headers, query)
        if refusal is None:
            await self.app(scope, receive, send)
        else:
            await _refuse(scope, send, refusal)

    def _refusal(self, scope: Scope, headers: Mapping[str, str], query: Mapping[str, list[str]]) -> str | None:
        """Why a request may not pass; None if it may."""
        host = headers.get("host", "")
        if host not in self.hosts and not (self.token is not None and _same(_token_in(headers), self.token)):
            return "this App answers to 127.0.0.1 and localhost"
        if headers.get("origin", f"http://{host}") != f"http://{host}":
            return "another page may not use this App"
        opened_by_hand = headers.get("sec-fetch-mode") == "navigate" and headers.get("sec-fetch-dest") == "document"
        if headers.get("sec-fetch-site", "none") not in ("none", "same-origin") and not opened_by_hand:
            return "another page may not use this App"
        kind = headers.get("content-type", "").partition(";")[0].strip().lower()
        if scope["type"] == "http" and scope["method"] not in LOOKS_ONLY and kind not in TYPES:
            return "changes are taken as application/json"
        for path in query.get("filepath", []):
            if not Path(path).resolve().is_relative_to(self.media):
                return "files are read from the project's media folder alone"
        return None


def _token_in(headers: Mapping[str, str]) -> str:
    try:
        cookie = SimpleCookie(headers.get("cookie", "")).get(COOKIE)
    except CookieError:
        return ""
    return "" if cookie is None else cookie.value


def _same(given: str, token: str) -> bool:
    return hmac.compare_digest(given.encode(), token.encode())


async def _let_in(send: Send, token: str, path: str) -> None:
    """Set the cookie and lead on to the address without the token, which would stay in the browser's history."""
    cookie = f"{COOKIE}={token}; HttpOnly; SameSite=Strict; Path=/"
    headers = [(b"location", path.encode("ascii", "replace")), (b"set-cookie", cookie.encode())]
    await send({"type": "http.response.start", "status": 303, "headers": headers})
    await send({"type": "http.response.body", "body": b""})


async def _refuse(scope: Scope, send: Send, reason: str) -> None:
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1008})
        return
    await send({"type": "http.response.start", "status": 403, "headers": [(b"content-type", b"text/plain")]})
    await send({"type": "http.response.body", "body": f"selftrain: {reason}\n".encode()})
