"""Who may ask, for what, and what browsers may do with the answers: checked before any route is reached."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import math
import os
import re
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from contextlib import suppress
from http.cookies import CookieError, SimpleCookie
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import anyio

from mal_trt.base.errors import InputError
from mal_trt.base.files import REGULAR, file_kind
from mal_trt.serve.answers import NotFound, error_answer
from mal_trt.serve.queues import Overloaded
from mal_trt.serve.settings import ServeSettings, is_loopback

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

COOKIE = "mal_trt_token"
OPEN = ("/healthz", "/readyz")  # what needs no token: they tell nothing but that the server is there
LONGEST_TARGET, LARGEST_HEAD = 8 << 10, 32 << 10
UNTIMED = (("POST", "/workspace/exports"),)  # as long as there are masks to write
READS = ("GET", "HEAD", "OPTIONS")
HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
    "connect-src 'self'; font-src 'self'; worker-src 'self'; manifest-src 'self'; base-uri 'none'; form-action 'self'; "
    "frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
}
RAW_HEADERS = [(name.encode(), value.encode()) for name, value in HEADERS.items()]
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


class TooLarge(InputError):
    """A body that is longer than the limit, found while it is read."""


class Guard:
    """An ASGI application around the server's own: see this module's first line."""

    def __init__(self, app: App, settings: ServeSettings) -> None:
        self._app, self._settings, self._limits = app, settings, settings.limits
        self._token = Token(settings.token) if settings.token is not None else None
        self._hosts = {"localhost", "127.0.0.1", "::1", settings.host.lower()}
        self._under_way = 0
        self._held = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
            return
        clock = anyio.CancelScope()

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                clock.deadline = math.inf  # how long a client may take to read it, the protocol says
                own = {name for name, _ in message.get("headers", [])}
                message["headers"] = [
                    *message.get("headers", []),
                    *(pair for pair in RAW_HEADERS if pair[0] not in own),
                ]
            await send(message)

        headers = dict(scope["headers"])  # of several with one name the last
        refused = self._refused(scope, headers)
        if refused is not None:
            await refused(scope, receive, answer)
            return
        counted = _Counted(receive, self._limits.body, self._take)
        self._under_way += 1
        try:
            with clock:
                if (scope["method"], scope["path"]) not in UNTIMED:
                    clock.deadline = anyio.current_time() + self._limits.seconds
                await self._app(scope, counted.receive, answer)
            if clock.cancelled_caught and clock.deadline < math.inf:
                text = f"not done within {self._limits.seconds:g} s; ask for fewer boxes, or later"
                await error_answer(503, text, retry_after=5)(scope, receive, answer)
        finally:
            self._under_way -= 1
            self._held -= counted.read

    def _take(self, size: int) -> bool:
        """Whether this many more bytes may be held."""
        self._held += size
        return self._held <= self._limits.held_bodies

    def _refused(self, scope: Scope, headers: dict[bytes, bytes]) -> App | None:
        """The answer to a request that is not to be looked at further, None if it may go on."""
        path = scope["path"]
        if scope.get("http_version", "1.1") not in ("1.0", "1.1"):
            return error_answer(400, "HTTP/1.1 is spoken here")
        if len(scope.get("raw_path", b"")) + len(scope["query_string"]) > LONGEST_TARGET:
            return error_answer(414, f"an address of more than {LONGEST_TARGET} bytes")
        if sum(len(name) + len(value) + 4 for name, value in scope["headers"]) > LARGEST_HEAD:
            return error_answer(431, f"headers of more than {LARGEST_HEAD} bytes")
        if _CONTROL.search(path) or b"\x00" in scope.get("query_string", b""):
            return error_answer(400, "the address holds control characters")
        host = _host(headers.get(b"host", b""))
        if host is None:
            return error_answer(400, "a request needs one Host header, with a name and perhaps a port")
        if self._token is None and host not in self._hosts and not is_loopback(host):
            # Else a page elsewhere could give its own name this machine's address, and read the answers.
            return error_answer(421, f"host {host}: this server answers to localhost alone; start it with --token")
        if scope["method"] not in READS and not _same_origin(headers):
            return error_answer(403, "sent by a page of another site")
        if headers.get(b"content-encoding", b"identity").lower() != b"identity":
            return error_answer(415, "content-encoding: bodies are taken as they are; send it without")
        length = headers.get(b"content-length", b"0")
        if length.isdigit() and int(length[:20]) > self._limits.body:
            return error_answer(413, f"{int(length[:20])} bytes; the limit is {self._limits.body}")
        if self._token is not None and path not in OPEN:
            if path == "/" and scope["method"] == "GET" and b"token=" in scope["query_string"]:
                return self._token.log_in(scope["query_string"])
            if not self._token.shown(headers):
                # Of a page's scripts nobody is to be asked for a name and a password, again and again.
                ask = b"mal-trt-work" not in headers
                return error_answer(401, "a token is needed: Authorization: Bearer TOKEN", authenticate=ask)
        if self._under_way >= self._limits.requests:
            return error_answer(503, f"{self._under_way} requests are being answered", retry_after=1)
        return None


class Token:
    """What clients must show, compared in a time that does not tell how much of it was right."""

    def __init__(self, token: str) -> None:
        self._digest = _digest(token.encode())
        # A name of its own: the servers of one machine share a browser's cookies, whatever their ports.
        self._cookie = f"{COOKIE}_{self._digest.hex()[:8]}"
        self._token = token

    def shown(self, headers: dict[bytes, bytes]) -> bool:
        """Whether a request shows it: as a bearer, as the password of basic authentication, or in the page's cookie."""
        kind, _, value = headers.get(b"authorization", b"").partition(b" ")
        value = value.strip()
        if kind.lower() == b"basic":
            try:
                value = base64.b64decode(value, validate=True).partition(b":")[2]
            except (binascii.Error, ValueError):
                return False
            return self.fits(value)
        if kind.lower() == b"bearer":
            return self.fits(value)
        if not kind:
            return any(self.fits(value) for value in _our_cookies(headers.get(b"cookie", b"")))
        return False

    def fits(self, value: bytes) -> bool:
        """Whether it is this one."""
        return hmac.compare_digest(_digest(value), self._digest)

    def log_in(self, query: bytes) -> App:
        """The answer to the page's first address, /?token=...: a cookie, and the address without the token."""
        try:
            given = parse_qs(query.decode("ascii"), max_num_fields=10).get("token", [""])[0]
        except ValueError:
            given = ""
        if not self.fits(given.encode()):
            return error_answer(401, "the address does not hold the right token", authenticate=True)
        cookie = f"{self._cookie}={_quoted(self._token)}; Path=/; HttpOnly; SameSite=Strict"

        async def answer(scope: Scope, receive: Receive, send: Send) -> None:
            headers = [(b"location", b"./"), (b"set-cookie", cookie.encode()), (b"content-length", b"0")]
            await send({"type": "http.response.start", "status": 303, "headers": headers})
            await send({"type": "http.response.body", "body": b""})

        return answer


class _Counted:
    """Messages of a request's body, counted: TooLarge once there are too many bytes."""

    def __init__(self, receive: Receive, most: int, take: Callable[[int], bool]) -> None:
        self._receive, self._most, self._take = receive, most, take
        self.read = 0

    async def receive(self) -> Message:
        message = await self._receive()
        size = len(message.get("body", b""))
        if size:
            self.read += size
            room = self._take(size)
            if self.read > self._most:
                raise TooLarge(f"more than the limit of {self._most} bytes")
            if not room:
                raise Overloaded("too much is being read from other clients")
        return message


def has_odd_characters(name: str) -> bool:
    """Whether a name holds a backslash, which other systems take for the end of a folder's name, or a control character
    such as a line break; `inside` opens no such file."""
    return "\\" in name or _CONTROL.search(name) is not None


def inside(root: Path, name: str) -> Path:
    """The regular file `name` below the folder `root`, links followed; InputError if it leaves the folder or is none.

    name: parts with / between. What it may not hold: "..", empty parts, and what `has_odd_characters` finds.
    """
    parts = name.split("/")
    bad = not name or len(name) > 4096 or has_odd_characters(name)
    if bad or any(part in ("", ".", "..") or len(part.encode("utf-8", "replace")) > 255 for part in parts):
        raise InputError(f"{name[:80]!r}: not the name of a file in the folder")
    try:
        home = os.path.realpath(root)
        path = os.path.realpath(os.path.join(home, *parts))
        if os.path.commonpath([home, path]) != home:
            raise InputError(f"{name[:80]!r}: leads out of the folder")
    except (OSError, ValueError):  # a loop of links; a name that the system does not take
        raise InputError(f"{name[:80]!r}: not the name of a file in the folder") from None
    if file_kind(path) != REGULAR:
        raise NotFound(f"{name[:80]!r}: no such file")
    return Path(path)


def _host(value: bytes) -> str | None:
    """The name or address in a Host header, in lower case and without brackets and port."""
    try:
        parts = urlsplit("//" + value.decode("ascii"))
        _ = parts.port
    except ValueError:
        return None
    if parts.path or parts.query or parts.username is not None or "@" in parts.netloc or not parts.hostname:
        return None
    return parts.hostname


def _same_origin(headers: dict[bytes, bytes]) -> bool:
    """Whether a request that changes something is from this server's own page, or from no page at all."""
    if headers.get(b"sec-fetch-site", b"none") not in (b"same-origin", b"none"):
        return False
    origin = headers.get(b"origin")
    if origin is None:
        return True
    _, separator, place = origin.partition(b"://")
    return bool(separator) and place.lower() == headers.get(b"host", b"").lower()


def _our_cookies(header: bytes) -> Iterator[bytes]:
    """Values of the cookies that servers of ours set; what others at this host set may be anything."""
    for part in header.decode("latin-1").split(";"):
        if part.lstrip().startswith(COOKIE):
            with suppress(CookieError):
                yield from (one.value.encode("latin-1", "replace") for one in SimpleCookie(part).values())


def _digest(value: bytes) -> bytes:
    return hashlib.sha256(value).digest()


def _quoted(value: str) -> str:
    """A value as a cookie holds it."""
    cookie: SimpleCookie = SimpleCookie()
    cookie["x"] = value
    return cookie["x"].coded_value
