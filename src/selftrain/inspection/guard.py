"""A guard before FiftyOne's server, which obeys any page that the browser has open.

It answers only to its own address (a rebound name has another Host), only pages that it served itself (Origin and
Sec-Fetch-Site, which browsers send), where something changes only types that a browser asks permission for (it sends
forms and plain text without asking), and it reads no file outside the media folder.

A second port may be open to other machines. There the token alone counts, under whatever name somebody comes: they
open the address with the token once.
"""

import hmac
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from http.cookies import CookieError, SimpleCookie
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qs, quote, urlencode

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

COOKIE = "selftrain_token"
LOOKS_ONLY = ("GET", "HEAD", "OPTIONS")
TYPES = ("application/json", "text/event-stream")
"""What FiftyOne's own pages send."""


class Public(NamedTuple):
    """How others come in."""

    port: int
    token: str


class Guard:
    """An ASGI application that passes on to another what may pass."""

    def __init__(self, app: App, port: int, media: Path, public: "Public | None" = None) -> None:
        self.app, self.media, self.public = app, media.resolve(), public
        self.hosts = {f"{name}:{port}" for name in ("127.0.0.1", "localhost")}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        query = parse_qs(scope["query_string"].decode("latin-1"))
        if (public := self._public(scope)) and _same(query.pop("token", [""])[0], public.token):
            await _let_in(send, public.token, scope["path"], query)
            return
        refusal = self._refusal(scope, headers, query)
        if refusal is None:
            await self.app(scope, receive, send)
        else:
            await _refuse(scope, send, refusal)

    def _public(self, scope: Scope) -> "Public | None":
        """How others come in, if this request came to their port: what it says of itself proves nothing."""
        port = (scope.get("server") or (None, None))[1]
        return self.public if self.public is not None and port == self.public.port else None

    def _refusal(self, scope: Scope, headers: Mapping[str, str], query: Mapping[str, list[str]]) -> str | None:
        """Why a request may not pass; None if it may."""
        host, public = headers.get("host", ""), self._public(scope)
        if public is not None and not _same(_token_in(headers), public.token):
            return "open the whole address first, with its token"
        if public is None and host not in self.hosts:
            return "this App answers to 127.0.0.1 and localhost"
        # A proxy before the public port may speak TLS.
        if headers.get("origin", f"http://{host}") not in (f"http://{host}", *([f"https://{host}"] if public else [])):
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


async def _let_in(send: Send, token: str, path: str, query: Mapping[str, list[str]]) -> None:
    """Set the cookie and lead on to the address without the token, which would stay in the browser's history."""
    # Lax: a link in a mail leads here too. Other pages' requests are told by their Origin.
    cookie = f"{COOKIE}={token}; HttpOnly; SameSite=Lax; Path=/"
    location = quote(path) + (f"?{urlencode(query, doseq=True)}" if query else "")
    headers = [(b"location", location.encode("ascii")), (b"set-cookie", cookie.encode())]
    await send({"type": "http.response.start", "status": 303, "headers": headers})
    await send({"type": "http.response.body", "body": b""})


async def _refuse(scope: Scope, send: Send, reason: str) -> None:
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1008})
        return
    await send({"type": "http.response.start", "status": 403, "headers": [(b"content-type", b"text/plain")]})
    await send({"type": "http.response.body", "body": f"selftrain: {reason}\n".encode()})
