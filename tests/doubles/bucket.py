"""An S3 server on the loopback (moto's), which fails when it is told to. Tests say `bucket: Bucket`."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

CODES = {500: "InternalError", 503: "SlowDown", 403: "AccessDenied", 400: "AuthorizationHeaderMalformed"}


@dataclass
class Fault:
    """Answers to requests whose method and path match, `times` of them: a status, or a wait of so many seconds."""

    method: str
    path: str
    status: int = 0
    times: int = 1 << 30
    wait: float = 0.0
    seen: int = 0


@dataclass
class Bucket:
    """url: of the bucket. faults: what goes wrong. asked: (method, path) of all requests."""

    url: str
    client: Any
    faults: list[Fault] = field(default_factory=list)
    asked: list[tuple[str, str]] = field(default_factory=list)

    def fail(self, method: str, path: str, **how: Any) -> Fault:
        """From now on."""
        self.faults.append(Fault(method, path, **how))
        return self.faults[-1]

    def put(self, key: str, content: bytes | Path) -> None:
        """An object."""
        body = content.read_bytes() if isinstance(content, Path) else content
        self.client.put_object(Bucket=self.url.removeprefix("s3://"), Key=key, Body=body)

    def get(self, key: str) -> bytes:
        """An object's content."""
        body: bytes = self.client.get_object(Bucket=self.url.removeprefix("s3://"), Key=key)["Body"].read()
        return body

    def keys(self) -> list[str]:
        """All objects."""
        found = self.client.list_objects_v2(Bucket=self.url.removeprefix("s3://")).get("Contents", [])
        return [one["Key"] for one in found]

    def app(self, inner: Callable[..., Any]) -> Callable[..., Any]:
        """A WSGI application that fails before the real one is asked."""

        def call(environ: dict[str, Any], start: Callable[..., Any]) -> Any:
            method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"]
            self.asked.append((method, path))
            for fault in self.faults:
                if fault.seen < fault.times and method == fault.method and re.search(fault.path, path):
                    fault.seen += 1
                    time.sleep(fault.wait)
                    if fault.status:
                        text = f"<Error><Code>{CODES[fault.status]}</Code><Message>injected</Message></Error>".encode()
                        head = [("Content-Type", "application/xml"), ("Content-Length", str(len(text)))]
                        start(f"{fault.status} injected", head)
                        return [] if method == "HEAD" else [text]
            return inner(environ, start)

        return call


@pytest.fixture(scope="session")
def s3_server() -> Iterator[tuple[str, Bucket]]:
    """The server's URL, and what stands before it."""
    pytest.importorskip("moto")
    pytest.importorskip("s3fs")
    from moto.server import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import make_server

    front = Bucket("", None)
    server = make_server("127.0.0.1", 0, front.app(DomainDispatcherApplication(create_backend_app)), threaded=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", front
    server.shutdown()


@pytest.fixture
def bucket(s3_server: tuple[str, Bucket], monkeypatch: pytest.MonkeyPatch) -> Iterator[Bucket]:
    """An empty bucket; the environment leads to it, and waits between tries are short."""
    import boto3
    import s3fs

    endpoint, front = s3_server
    variables = {"AWS_ENDPOINT_URL": endpoint, "AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}
    for name, value in {**variables, "AWS_DEFAULT_REGION": "us-east-1"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("mal_trt.base.remote.FIRST_WAIT", 0.01)
    s3fs.S3FileSystem.clear_instance_cache()
    front.url, front.client = f"s3://bucket-{time.time_ns()}", boto3.client("s3")
    front.faults.clear()
    front.client.create_bucket(Bucket=front.url.removeprefix("s3://"))
    front.asked.clear()
    yield front
    front.faults.clear()
    s3fs.S3FileSystem.clear_instance_cache()
