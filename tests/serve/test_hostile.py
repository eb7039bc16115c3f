"""Whatever is sent, the answer is a clear 4xx, and the server answers the next one."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

import hostile
from hostile import Request, http
from serving import Server, serving

TOKEN = "correct-horse-battery"
ASKED = json.dumps({"picture": "a.png", "boxes": [[6, 10, 34, 30]], "box_format": "xyxy"}).encode()
GOOD = http("POST", "/v1/label", ASKED, {"Content-Type": "application/json"})
ALL = [
    request
    for kind in (hostile.names, hostile.targets, hostile.heads, hostile.bodies, hostile.pictures, hostile.boxes)
    for request in kind()
]


@pytest.fixture(scope="module", autouse=True)
def traps(serve_folder: Path) -> None:
    """What lies in and beside the folder of pictures, and must not be reached."""
    pictures = serve_folder / "pictures"
    outside = serve_folder / "outside"
    outside.mkdir()
    (serve_folder / "outside.png").write_bytes((pictures / "a.png").read_bytes())
    (outside / "outside.png").write_bytes((pictures / "a.png").read_bytes())
    (pictures / "link.png").symlink_to(serve_folder / "outside.png")
    (pictures / "linked").symlink_to(outside)
    (pictures / "loop.png").symlink_to("loop.png")
    (pictures / "proc.png").symlink_to("/proc/self/environ")
    (pictures / "notes.txt").write_text("not a picture")
    os.mkfifo(pictures / "pipe.png")


@pytest.fixture(scope="module")
def guarded(server: Server, serve_folder: Path) -> Iterator[Server]:
    with serving(replace(server.settings, token=TOKEN)) as running:
        yield running


def sent(port: int, raw: bytes, seconds: float = 20) -> tuple[int, dict[str, str], bytes]:
    """Send bytes, read what comes until the other side closes: status, headers, body; status 0 for nothing."""
    with socket.create_connection(("127.0.0.1", port), timeout=seconds) as connection:
        with suppress(BrokenPipeError, ConnectionResetError):  # it need not read all
            connection.sendall(raw)
        return received(connection)


def received(connection: socket.socket) -> tuple[int, dict[str, str], bytes]:
    parts = []
    try:
        while part := connection.recv(1 << 16):
            parts.append(part)
    except ConnectionResetError:
        pass
    head, _, body = b"".join(parts).partition(b"\r\n\r\n")
    if not head:
        return 0, {}, b""
    first, *lines = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    return int(first.split()[1]), headers, body


def check(port: int, request: Request) -> None:
    status, headers, body = sent(port, request.raw)
    body = body[: int(headers["content-length"])]  # more may follow, if more was sent than a request
    assert status in request.statuses, (status, body[:300])
    if status >= 400:
        assert set(json.loads(body)) == {"error"} and len(body) < 500, body
        assert b"Traceback" not in body and b"/pictures" not in body
        assert headers["content-type"] == "application/json"
    assert headers["x-content-type-options"] == "nosniff"
    assert "'unsafe-inline'" not in headers["content-security-policy"]
    assert "access-control-allow-origin" not in headers


def test_there_are_many() -> None:
    assert len(ALL) > 150 and len({request.name for request in ALL}) == len(ALL)


@pytest.mark.parametrize("request_", ALL, ids=lambda request: request.name[:60])
def test_a_clear_answer_and_the_next_one(server: Server, request_: Request) -> None:
    check(server.port, request_)
    assert sent(server.port, GOOD)[0] == 200


@pytest.mark.parametrize("request_", hostile.wrong_tokens(TOKEN), ids=lambda request: request.name[:60])
def test_nothing_without_the_token(guarded: Server, request_: Request) -> None:
    check(guarded.port, request_)


def test_the_token_opens(guarded: Server) -> None:
    import base64

    basic = "Basic " + base64.b64encode(f"any:{TOKEN}".encode()).decode()
    for shown in ({"authorization": f"Bearer {TOKEN}"}, {"authorization": basic}, {"cookie": f"mal_trt_token={TOKEN}"}):
        assert guarded.get("/v1/models", shown).status == 200
    assert guarded.get("/healthz").status == guarded.get("/readyz").status == 200
    first = guarded.get(f"/?token={TOKEN}")
    assert first.status == 303 and TOKEN not in first.headers["location"]
    cookie = first.headers["set-cookie"]
    assert "HttpOnly" in cookie and "SameSite=Strict" in cookie
    assert guarded.get("/", {"cookie": cookie.partition(";")[0]}).status == 200
    assert guarded.get("/v1/models", {"authorization": f"Bearer {TOKEN}", "host": "label.example"}).status == 200


def test_a_page_keeps_the_tokens_of_several_servers_and_asks_for_no_password(guarded: Server) -> None:
    other = {"mal_trt_token_0123abcd": "the token of another port"}
    cookie = guarded.get(f"/?token={TOKEN}").headers["set-cookie"].partition(";")[0]
    both = "; ".join([*(f"{name}={value}" for name, value in other.items()), cookie])
    assert cookie.partition("=")[0] not in other and guarded.get("/v1/models", {"cookie": both}).status == 200
    assert "Basic" in guarded.get("/workspace").headers["www-authenticate"]
    assert "www-authenticate" not in guarded.get("/workspace", {"mal-trt-work": ""}).headers


def test_a_head_that_never_ends(server: Server) -> None:
    """Slowloris: a byte now and then. The connection is closed in time, and others are answered meanwhile."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n")
        began = time.monotonic()
        closed = False
        while not closed and time.monotonic() < began + 10:
            time.sleep(0.2)
            assert sent(server.port, GOOD)[0] == 200
            try:
                connection.sendall(b"X: a\r\n")
                connection.setblocking(False)
                closed = b"408" in connection.recv(1000)
            except BlockingIOError:
                pass
            except (BrokenPipeError, ConnectionResetError):
                closed = True
            finally:
                connection.setblocking(True)
        assert closed and time.monotonic() - began < 5


@pytest.mark.parametrize(
    ("start", "status"),
    [
        (b"", 408),
        (b"GET /v1/mod", 408),
        (GOOD[:-5], 0),
    ],
    ids=["nothing", "half a head", "half a body"],
)
def test_a_client_that_waits_is_let_go(server: Server, start: bytes, status: int) -> None:
    began = time.monotonic()
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
        connection.sendall(start)
        assert received(connection)[0] == status
    assert time.monotonic() - began < 6
    assert sent(server.port, GOOD)[0] == 200


@pytest.mark.parametrize("cut", [10, 60, len(GOOD) - 5], ids=["in the first line", "in the head", "in the body"])
def test_half_a_request_and_then_no_more(server: Server, cut: int) -> None:
    """The client closes its side in the middle: nothing hangs."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
        connection.sendall(GOOD[:cut])
        connection.shutdown(socket.SHUT_WR)
        assert received(connection)[0] in (0, 400, 408)
    assert sent(server.port, GOOD)[0] == 200


def test_a_client_that_closes_its_side_still_gets_its_answer(server: Server) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
        connection.sendall(GOOD)
        connection.shutdown(socket.SHUT_WR)
        status, _, body = received(connection)
    assert status == 200 and len(json.loads(body)["masks"]) == 1


def test_clients_that_go_away_take_nothing_with_them(server: Server) -> None:
    for _ in range(30):
        with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
            connection.sendall(GOOD)
    deadline = time.monotonic() + 10
    while server.app.state.serve.inference.waiting and time.monotonic() < deadline:
        time.sleep(0.05)
    assert server.app.state.serve.inference.waiting == 0
    assert sent(server.port, GOOD)[0] == 200


def test_requests_one_behind_the_other(server: Server) -> None:
    """Pipelining: a broken one behind a good one does not spoil the good one."""
    kept = GOOD.replace(b"Connection: close\r\n", b"")
    status, _, body = sent(server.port, kept + kept + b"NONSENSE\r\n\r\n")
    assert status == 200
    assert body.count(b'"masks"') == 2 and b"HTTP/1.1 400" in body
