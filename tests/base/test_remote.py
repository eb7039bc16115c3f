"""Names on a web server."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

pytest.importorskip("fsspec")
pytest.importorskip("aiohttp")

from mal_trt.base.remote import Store


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *words: object) -> None:
        pass


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """The URL of a server of the test's folder."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(tmp_path))) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_names_that_mean_something_in_a_url(tmp_path: Path, server: str) -> None:
    names = ("a b#1.jpg", "50%25 off.jpg", "q?x=1.jpg", "ünï+&.jpg")
    for name in names:
        (tmp_path / name).write_bytes(name.encode())
    store = Store(server)
    for name in names:
        assert store.read(name) == name.encode() and store.is_file(name)
        store.fetch(name, tmp_path / "copy")
        assert (tmp_path / "copy").read_bytes() == name.encode()
    assert store.read("a%20b%231.jpg?size=large") == b"a b#1.jpg"  # a URL stays one
    with pytest.raises(FileNotFoundError):
        store.read("none#.jpg")
