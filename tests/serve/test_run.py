"""The server as a process: it starts, bears too much, and finishes what it has accepted."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from mal_trt.base.errors import InputError, RunError
from mal_trt.cli import app
from mal_trt.labelling.cpu_masker import CpuMasker
from mal_trt.serve.reference import page
from mal_trt.serve.run import listen
from mal_trt.serve.security import Guard
from mal_trt.serve.settings import Limits, ServeSettings
from serving import Server, serving

ASKED = {"picture": "a.png", "boxes": [[6, 10, 34, 30]] * 4, "box_format": "xyxy"}


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> float:
    """Every batch takes half a second."""
    masks = CpuMasker.masks

    def slowly(*args: Any, **options: Any) -> Any:
        time.sleep(0.5)
        return masks(*args, **options)

    monkeypatch.setattr(CpuMasker, "masks", slowly)
    return 0.5


def settings(server: Server, **limits: Any) -> ServeSettings:
    return replace(server.settings, limits=replace(server.settings.limits, **limits))


def test_too_much_gets_503_and_when_to_come_again(server: Server, slow: float) -> None:
    with serving(replace(settings(server, queue=8, boxes=4), batch=1)) as small, ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(lambda _: small.post_json("/v1/label", ASKED), range(12)))
        statuses = [answer.status for answer in answers]
        assert set(statuses) == {200, 503} and statuses.count(200) >= 2
        for answer in answers:
            if answer.status == 503:
                assert 1 <= int(answer.headers["retry-after"]) <= 60 and "waiting" in answer.json["error"]
            else:
                assert len(answer.json["masks"]) == 4
        assert small.post_json("/v1/label", ASKED).status == 200


def test_an_answer_that_takes_too_long(server: Server, slow: float) -> None:
    with serving(settings(server, seconds=0.2)) as hasty:
        answer = hasty.post_json("/v1/label", ASKED)
        assert answer.status == 503 and "0.2 s" in answer.json["error"] and answer.headers["retry-after"]


def test_an_answer_that_has_begun_is_not_cut_off(server: Server) -> None:
    async def sends(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await asyncio.sleep(0.2)  # a client on a slow line
        await send({"type": "http.response.body", "body": b"whole"})

    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "GET", "path": "/", "query_string": b"", "headers": [(b"host", b"localhost")]}
    asyncio.run(Guard(sends, settings(server, seconds=0.05))(scope, None, send))  # type: ignore[arg-type]
    assert [message.get("body") for message in sent] == [None, b"whole"]


def test_what_was_accepted_is_finished(server: Server, slow: float) -> None:
    with ThreadPoolExecutor(3) as pool:
        with serving(server.settings) as stopping:
            futures = [pool.submit(stopping.post_json, "/v1/label", ASKED) for _ in range(3)]
            deadline = time.monotonic() + 20
            requests = stopping.app.state.serve.inference
            while not requests._queues._pixels and time.monotonic() < deadline:
                time.sleep(0.01)
            time.sleep(0.2)
        assert [len(future.result().json["masks"]) for future in futures] == [4, 4, 4]
    with pytest.raises(OSError):
        stopping.get("/healthz")


def test_a_network_that_fails_is_told_and_the_next_one_answered(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as broken:

        def fail(*args: Any, **options: Any) -> Any:
            raise RunError("out of memory")

        broken.setattr(CpuMasker, "masks", fail)
        answer = server.post_json("/v1/label", ASKED)
        assert (answer.status, answer.json) == (500, {"error": "out of memory"})
        broken.setattr(CpuMasker, "masks", lambda *a, **o: 1 / 0)
        answer = server.post_json("/v1/label", ASKED)
        assert answer.status == 500 and "ZeroDivisionError" in answer.json["error"]
    assert server.post_json("/v1/label", ASKED).status == 200
    assert server.get("/readyz").status == 200


def test_it_starts_says_where_it_is_and_stops(serve_folder: Path) -> None:
    options = ["--port", "0", "--device", "cpu", "--model", str(serve_folder / "tiny.onnx"), "--host", "0.0.0.0"]
    environment = {key: value for key, value in os.environ.items() if key != "MAL_TRT_TOKEN"}
    command = [sys.executable, "-u", "-m", "mal_trt.cli", "serve", *options]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=serve_folder, env=environment
    )
    assert process.stdout is not None
    found = re.match(r"serving on http://0\.0\.0\.0:(\d+)/\?token=(\S{32,})$", process.stdout.readline())
    assert found, "a token is made and printed, since others can reach this address"
    with socket.create_connection(("127.0.0.1", int(found[1])), timeout=30) as connection:
        connection.sendall(f"GET /v1/models HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {found[2]}\r\n\r\n".encode())
        assert connection.recv(100).startswith(b"HTTP/1.1 200")
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 0
    assert "Traceback" not in process.stdout.read()


def test_an_address_that_is_taken() -> None:
    with listen(ServeSettings(port=0)) as first, pytest.raises(InputError, match="cannot listen there"):
        listen(ServeSettings(port=first.getsockname()[1]))
    with pytest.raises(InputError, match="no address of this machine"):
        listen(ServeSettings(host="name.invalid", port=0, token="x" * 20))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"host": "0.0.0.0"}, "token"),
        ({"host": "192.168.1.5"}, "token"),
        ({"host": "example.org"}, "token"),
        ({"token": "short"}, "at least 16"),
        ({"token": "\u00e4" * 20}, "ASCII"),
        ({"token": "a" * 20 + "\n"}, "printed"),
        ({"label_studio": "localhost:8080"}, "address of Label Studio"),
        ({"label_studio": "ftp://localhost"}, "address of Label Studio"),
    ],
)
def test_settings_that_cannot_be(options: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        ServeSettings(**options)
    for host in ("127.0.0.1", "127.8.8.8", "::1", "localhost"):
        assert ServeSettings(host=host).token is None
    with pytest.raises(InputError):
        Limits(boxes=10, queue=5)


def test_the_interface_as_a_page(server: Server) -> None:
    answer = server.get("/docs")
    text = answer.body.decode()
    assert (
        answer.status == 200
        and "<script" not in text
        and "http" not in re.sub(r"HTTP/?", "", text).replace("https", "")
    )
    for path in ("POST /v1/label", "GET /metrics", "POST /predict", "box_format", "multipart/form-data"):
        assert path in text
    assert server.get("/static/reference.css").status == 200
    document = server.get("/openapi.json").json
    assert set(document["paths"]["/v1/label"]["post"]["requestBody"]["content"]) == {
        "multipart/form-data",
        "application/json",
    }
    assert "<b>" not in page({"info": {"title": "<b>", "version": "1"}, "paths": {}})


def test_boxes_may_lie_at_a_url(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[ServeSettings] = []
    monkeypatch.setattr("mal_trt.serve.run.serve", lambda settings, tell: started.append(settings))
    assert CliRunner().invoke(app, ["serve", "--boxes", "https://example.com/boxes.json"]).exit_code == 0
    assert started[0].boxes == "https://example.com/boxes.json"
