"""Servers for tests: each runs in a thread and listens on a free port of this machine."""

from __future__ import annotations

import http.client
import io
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from label_data import blob_picture
from tiny_model import write_tiny_model


@dataclass(frozen=True)
class Answer:
    """An answer: its status, its headers by their names in lower case, its body."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Server:
    """A running server, and requests to it, each on a connection of its own."""

    def __init__(self, settings: Any, port: int, app: Any) -> None:
        self.settings, self.port, self.app = settings, port, app

    def ask(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: dict[str, str] | None = None,
        timeout: float = 60,
    ) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        try:
            connection.request(method, path, body, headers or {})
            got = connection.getresponse()
            return Answer(got.status, {k.lower(): v for k, v in got.getheaders()}, got.read())
        finally:
            connection.close()

    def get(self, path: str, headers: dict[str, str] | None = None) -> Answer:
        return self.ask("GET", path, None, headers)

    def post_json(self, path: str, document: Any, headers: dict[str, str] | None = None) -> Answer:
        body = json.dumps(document).encode()
        return self.ask("POST", path, body, {"content-type": "application/json", **(headers or {})})

    def post_form(self, path: str, fields: dict[str, Any], headers: dict[str, str] | None = None) -> Answer:
        body, kind = form(fields)
        return self.ask("POST", path, body, {"content-type": kind, **(headers or {})})


def form(fields: dict[str, Any]) -> tuple[bytes, str]:
    """multipart/form-data of fields, bytes as files, and its content type."""
    parts = []
    for name, value in fields.items():
        file = '; filename="a.bin"' if isinstance(value, bytes) else ""
        content = value if isinstance(value, bytes) else str(value).encode()
        parts.append(f'--limit\r\nContent-Disposition: form-data; name="{name}"{file}\r\n\r\n'.encode() + content)
    return b"\r\n".join([*parts, b"--limit--", b""]), "multipart/form-data; boundary=limit"


def png(pixels: np.ndarray) -> bytes:
    """A picture's PNG file."""
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


@contextmanager
def serving(settings: Any) -> Iterator[Server]:
    """A server with these settings, until it has finished all that it accepted."""
    from mal_trt.serve.run import listen, server_of

    with listen(settings) as listening:
        port = listening.getsockname()[1]
        server = server_of(settings)
        thread = threading.Thread(target=server.run, args=([listening],), daemon=True)
        thread.start()
        while not server.started and thread.is_alive():
            time.sleep(0.01)
        try:
            yield Server(settings, port, server.config.app)
        finally:
            server.should_exit = True
            thread.join(60)
            assert not thread.is_alive(), "the server did not stop"


@pytest.fixture(scope="session")
def serve_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny model, tiny.onnx, and two pictures of 120x80 pixels, pictures/a.png and sub/b.png."""
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    folder = tmp_path_factory.mktemp("serve")
    write_tiny_model(folder / "tiny.onnx")
    for number, name in enumerate(("a.png", "sub/b.png")):
        path = folder / "pictures" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png(blob_picture(120, 80, number)))
    return folder


@pytest.fixture(scope="session")
def server(serve_folder: Path) -> Iterator[Server]:
    """A server with the tiny model and the pictures, with low limits: 1 MiB, 100,000 pixels, 20 boxes."""
    from mal_trt.serve.settings import Limits, ServeSettings

    limits = Limits(body=1 << 20, pixels=100_000, boxes=20, queue=200, head=1.0, body_seconds=1.0, idle=2, stalled=1.0)
    settings = ServeSettings(
        model=serve_folder / "tiny.onnx",
        images=serve_folder / "pictures",
        workspace=serve_folder / "workspace",
        port=0,
        device="cpu",
        threads=1,
        limits=limits,
    )
    with serving(settings) as running:
        yield running
